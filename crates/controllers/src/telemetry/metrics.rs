//! What is counted, and how it is read.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use kratix_core::metrics::{Counter, QUEUE_LENGTH, QUEUE_LENGTH_DESCRIPTION, SCOPE, Sample};
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use parking_lot::{Mutex, RwLock};

/// Series kept apart, of all counters together. What comes after them is counted by its result alone, so that many objects
/// cannot fill memory. 10,000 series are about 4 MB, and with the longest attributes 16 MB.
pub(super) const SERIES_MAX: usize = 10_000;
/// Results of all counters: as many series more there may be.
pub(super) const RESULTS_MAX: usize = 8;
/// Marks a series that stands for many.
const OVERFLOW: (&str, &str) = ("otel_metric_overflow", "true");

/// Length of a queue, with the kind and the name of the state store.
type Queue = (String, String, usize);
type Queues = Box<dyn Fn() -> Vec<Queue> + Send + Sync>;

/// The counters and gauges of the process. Clones count together.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Inner>);

#[derive(Default)]
struct Inner {
    counts: Mutex<BTreeMap<Sample, u64>>,
    queues: RwLock<Option<Queues>>,
}

impl Metrics {
    /// Adds one for each sample.
    pub(crate) fn count(&self, samples: impl IntoIterator<Item = Sample>) {
        let mut counts = self.0.counts.lock();
        for sample in samples {
            let is_full = counts.len() >= SERIES_MAX && !counts.contains_key(&sample);
            *counts.entry(if is_full { overflow(sample) } else { sample }).or_default() += 1;
        }
    }

    /// Sets who knows how long the queues of the state stores are.
    pub(crate) fn watch_queues(&self, queues: impl Fn() -> Vec<Queue> + Send + Sync + 'static) {
        *self.0.queues.write() = Some(Box::new(queues));
    }

    /// Renders all values in the text format of Prometheus.
    pub fn exposition(&self) -> String {
        let mut text = String::new();
        let counts = self.0.counts.lock().clone();
        for counter in Counter::ALL {
            heading(&mut text, counter.name(), counter.description(), "counter");
            for (sample, count) in counts.iter().filter(|(sample, _)| sample.counter == counter) {
                let attributes = sample.attributes.iter().map(|(key, value)| (*key, value.as_str()));
                line(&mut text, counter.name(), attributes, *count);
            }
        }
        heading(&mut text, QUEUE_LENGTH, QUEUE_LENGTH_DESCRIPTION, "gauge");
        for (kind, name, length) in self.queues() {
            let attributes = [("kind", kind.as_str()), ("name", name.as_str())];
            line(&mut text, QUEUE_LENGTH, attributes.into_iter(), length as u64);
        }
        text
    }

    /// Lets a provider read the values whenever it exports.
    pub(super) fn register(&self, provider: &SdkMeterProvider) {
        let meter = provider.meter(SCOPE);
        for counter in Counter::ALL {
            let metrics = self.clone();
            let instrument = meter.u64_observable_counter(counter.name()).with_description(counter.description());
            instrument
                .with_callback(move |observer| {
                    for (sample, count) in metrics.0.counts.lock().iter().filter(|(one, _)| one.counter == counter) {
                        let pairs = sample.attributes.iter().map(|(key, value)| KeyValue::new(*key, value.clone()));
                        observer.observe(*count, &pairs.collect::<Vec<_>>());
                    }
                })
                .build();
        }
        let metrics = self.clone();
        meter
            .u64_observable_gauge(QUEUE_LENGTH)
            .with_description(QUEUE_LENGTH_DESCRIPTION)
            .with_callback(move |observer| {
                for (kind, name, length) in metrics.queues() {
                    observer.observe(length as u64, &[KeyValue::new("kind", kind), KeyValue::new("name", name)]);
                }
            })
            .build();
    }

    fn queues(&self) -> Vec<Queue> {
        self.0.queues.read().as_ref().map_or_else(Vec::new, |queues| queues())
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("series", &self.0.counts.lock().len()).finish_non_exhaustive()
    }
}

fn overflow(sample: Sample) -> Sample {
    let result = sample.attributes.into_iter().filter(|(key, _)| *key == "result");
    let mark = [(OVERFLOW.0, OVERFLOW.1.to_owned())];
    Sample { counter: sample.counter, attributes: result.chain(mark).collect() }
}

fn heading(text: &mut String, name: &str, description: &str, r#type: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {description}\n# TYPE {name} {type}");
}

fn line<'a>(text: &mut String, name: &str, attributes: impl Iterator<Item = (&'a str, &'a str)>, value: u64) {
    let escaped = |value: &str| value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let labels: Vec<String> = attributes.map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
    let _ = writeln!(text, "{name}{{{}}} {value}", labels.join(","));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(result: &str, resource: &str) -> Sample {
        let attributes = vec![("result", result.to_owned()), ("resource", resource.to_owned())];
        Sample { counter: Counter::Writes, attributes }
    }

    #[test]
    fn values_are_exposed_with_their_labels_escaped() {
        let metrics = Metrics::default();
        metrics.count([sample("success", "a"), sample("success", "a"), sample("failure", "odd\"\n\\")]);
        metrics.watch_queues(|| vec![("GitStateStore".into(), "default".into(), 3)]);
        let text = metrics.exposition();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "# HELP kratix_workplacement_outcomes_total Total number of WorkPlacement scheduling outcomes",
                "# TYPE kratix_workplacement_outcomes_total counter",
                "# HELP kratix_workplacement_writes_total Total number of WorkPlacement write attempts",
                "# TYPE kratix_workplacement_writes_total counter",
                r#"kratix_workplacement_writes_total{result="failure",resource="odd\"\n\\"} 1"#,
                r#"kratix_workplacement_writes_total{result="success",resource="a"} 2"#,
                "# HELP kratix_statestore_queue_length Number of changes that wait for a state store",
                "# TYPE kratix_statestore_queue_length gauge",
                r#"kratix_statestore_queue_length{kind="GitStateStore",name="default"} 3"#,
            ]
        );
    }

    #[test]
    fn more_series_than_fit_are_counted_together_by_result() {
        let metrics = Metrics::default();
        metrics.count((0..SERIES_MAX).map(|number| sample("success", &number.to_string())));
        metrics.count([sample("success", "0"), sample("success", "new"), sample("success", "other")]);
        metrics.count([sample("failure", "new")]);
        let text = metrics.exposition();
        let has = |line: &str| text.lines().any(|found| found == line);
        assert!(has(r#"kratix_workplacement_writes_total{result="success",resource="0"} 2"#));
        assert!(has(r#"kratix_workplacement_writes_total{result="success",otel_metric_overflow="true"} 2"#));
        assert!(has(r#"kratix_workplacement_writes_total{result="failure",otel_metric_overflow="true"} 1"#));
        assert!(!text.contains("new"));
    }
}
