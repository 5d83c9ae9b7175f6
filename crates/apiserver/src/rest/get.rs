//! Reading one object.

use std::sync::Arc;

use crate::core::{Call, Core};
use crate::failure::Failure;
use crate::store::Record;

impl Core {
    /// Returns the object that the call names.
    pub(crate) fn get(&self, call: &Call) -> Result<Arc<Record>, Failure> {
        self.store.get(&call.served.table, &call.object_name()).ok_or_else(|| call.not_found())
    }
}
