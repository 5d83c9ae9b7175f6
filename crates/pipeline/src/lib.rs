//! What runs inside a workflow pod: reader, work-writer, status-writer.
