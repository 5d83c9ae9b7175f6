//! What the platform makes of its ConfigMap, and what it says about it there.

use k8s_openapi::api::core::v1::ConfigMap;
use kratix_api::keys;

use super::Config;
use crate::object::Target;
use crate::plan::{Event, Reporter};

/// What was read from the ConfigMap.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The settings; `None` if none could be read, and those in force stay.
    pub config: Option<Config>,
    /// What did not take effect as written, each in one line. Values that are secret are not shown.
    pub faults: Vec<String>,
}

impl Reading {
    /// Reads the ConfigMap; one that does not exist means the defaults.
    pub fn of(config_map: Option<&ConfigMap>) -> Self {
        let Some(config_map) = config_map else {
            return Self { config: Some(Config::default()), faults: Vec::new() };
        };
        match Config::parse(document(config_map)) {
            Ok((config, warnings)) => {
                Self { config: Some(config), faults: warnings.iter().map(ToString::to_string).collect() }
            }
            Err(error) => Self { config: None, faults: vec![format!("{error}; the settings in force stay")] },
        }
    }

    /// Returns the event on the ConfigMap that tells of all faults, if there are any.
    ///
    /// It is told whenever the document has changed: who corrects one of two faults is told of the other.
    pub fn complaint(&self, config_map: &ConfigMap) -> Option<Event> {
        let tell = || {
            let target = Target::of(config_map);
            Event::warning(Reporter::Manager, target, "InvalidConfiguration", self.faults.join("; "))
        };
        (!self.faults.is_empty()).then(tell)
    }
}

/// Tells whether a change of the ConfigMap concerns the settings: labels and other keys do not.
pub fn concerns(old: Option<&ConfigMap>, new: Option<&ConfigMap>) -> bool {
    old.map(document) != new.map(document)
}

/// Returns the event that tells that some of the settings that have changed do nothing, if so.
pub fn without_effect(config_map: &ConfigMap, old: &Config, new: &Config) -> Option<Event> {
    let keys = old.changed_without_effect(new);
    let note = format!("changed, but without effect on this program: {}", keys.join(", "));
    (!keys.is_empty()).then(|| Event::normal(Reporter::Manager, Target::of(config_map), "WithoutEffect", note))
}

fn document(config_map: &ConfigMap) -> &str {
    config_map.data.as_ref().and_then(|data| data.get(keys::CONFIG_KEY)).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::EventType;

    fn config_map(text: &str) -> ConfigMap {
        let mut config_map = ConfigMap::default();
        config_map.metadata.name = Some(keys::CONFIG_MAP.into());
        config_map.data = Some([(keys::CONFIG_KEY.to_owned(), text.to_owned())].into());
        config_map
    }

    #[test]
    fn faults_are_told_on_the_config_map_in_one_line_and_without_secrets() {
        let text = "numberOfJobsToKeep: many\ntelemetry: {headers: {authorization: [s3cret]}}\nnonsense: 1\n";
        let broken = config_map(text);
        let reading = Reading::of(Some(&broken));
        assert_eq!((reading.faults.len(), reading.config.is_some()), (3, true), "the other settings hold");
        let event = reading.complaint(&broken).unwrap();
        assert_eq!((event.type_, event.reason), (EventType::Warning, "InvalidConfiguration"));
        assert_eq!(event.regarding.key.name, "kratix");
        assert_eq!(event.reporter, Reporter::Manager);
        for part in ["\"numberOfJobsToKeep\" has value \"many\"", "telemetry.headers.authorization", "\"nonsense\""] {
            assert!(event.note.contains(part), "{}", event.note);
        }
        assert!(!event.note.contains("s3cret") && !event.note.contains('\n'), "{}", event.note);
    }

    #[test]
    fn a_document_that_cannot_be_read_leaves_the_settings_in_force_and_says_so() {
        let broken = config_map("[");
        let reading = Reading::of(Some(&broken));
        assert_eq!(reading.config, None);
        let note = reading.complaint(&broken).unwrap().note;
        assert!(note.contains("is not valid YAML") && note.ends_with("; the settings in force stay"), "{note}");
    }

    #[test]
    fn nothing_is_said_about_a_good_document_or_none() {
        for found in [None, Some(&ConfigMap::default()), Some(&config_map("numberOfJobsToKeep: 3"))] {
            let reading = Reading::of(found);
            assert_eq!(reading.complaint(&config_map("")), None);
            assert!(reading.config.is_some());
        }
    }

    #[test]
    fn the_document_alone_concerns_the_settings() {
        let old = config_map("numberOfJobsToKeep: 3");
        let mut new = old.clone();
        new.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        new.data.as_mut().unwrap().insert("another".into(), "key".into());
        assert!(!concerns(Some(&old), Some(&new)));
        assert!(
            concerns(Some(&old), Some(&config_map(""))) && concerns(Some(&old), None) && concerns(None, Some(&old))
        );
    }

    #[test]
    fn a_change_of_a_setting_that_does_nothing_is_told_once_and_of_no_other_one() {
        let config = |text: &str| Config::parse(text).unwrap().0;
        let event = |old: &str, new: &str| without_effect(&config_map(new), &config(old), &config(new));
        let in_force = "stateStoreReconciliationInterval: 1m\nfeatureFlags: {dryRun: true}\ntelemetry: {}";
        assert_eq!(event("", in_force), None);
        let told = event("", "selectiveCache: true\nlogging: {structured: false}").unwrap();
        assert_eq!(told.note, "changed, but without effect on this program: logging, selectiveCache");
        assert_eq!((told.type_, told.reason, told.reporter), (EventType::Normal, "WithoutEffect", Reporter::Manager));
        assert_eq!(event("selectiveCache: true", "selectiveCache: true\nnumberOfJobsToKeep: 3"), None);
    }
}
