//! Arguments and environment of the programs, read once.

use std::path::PathBuf;

use kratix_api::keys::{self, env};
use kratix_api::{Action, WorkflowType};

use crate::Error;
use crate::object::Address;
use crate::{reader, status_writer, work_writer};

/// Where the volumes of a pod are mounted in Kratix's own containers.
const INPUT_DIR: &str = "/kratix/input";
const METADATA_DIR: &str = "/work-creator-files/metadata";

/// A program with everything it needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Writes the object for the containers.
    Reader(reader::Config),
    /// Turns what they wrote into a Work.
    WorkWriter(work_writer::Config),
    /// Tells the object how it went.
    StatusWriter(status_writer::Config),
}

/// Looks up an environment variable.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Program {
    /// Reads arguments and environment.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the argument or variable.
    pub fn parse(args: &[String], lookup: Lookup<'_>) -> Result<Self, Error> {
        match args.first().map(String::as_str) {
            Some("reader") => Ok(Self::Reader(reader::Config::from_env(lookup)?)),
            Some("work-creator" | "work-writer") => Ok(Self::WorkWriter(work_writer_config(&args[1..], lookup)?)),
            Some("update-status" | "status-writer") => Ok(Self::StatusWriter(status_writer::Config::from_env(lookup)?)),
            Some(other) => {
                Err(Error::Usage(format!("unknown command {other:?}, use reader, work-creator or update-status")))
            }
            None => Err(Error::Usage("a command is needed: reader, work-creator or update-status".to_owned())),
        }
    }
}

fn is_true(lookup: Lookup<'_>, name: &str) -> bool {
    lookup(name).is_some_and(|value| value == keys::TRUE)
}

fn text(lookup: Lookup<'_>, name: &str) -> String {
    lookup(name).unwrap_or_default()
}

fn required(lookup: Lookup<'_>, name: &str) -> Result<String, Error> {
    let value = text(lookup, name);
    if value.is_empty() { Err(Error::Usage(format!("environment variable {name} is not set"))) } else { Ok(value) }
}

fn address(lookup: Lookup<'_>) -> Result<Address, Error> {
    let namespace = text(lookup, env::OBJECT_NAMESPACE);
    let namespace = if namespace.is_empty() { "default".to_owned() } else { namespace };
    Ok(Address {
        group: text(lookup, env::OBJECT_GROUP),
        version: required(lookup, env::OBJECT_VERSION)?,
        plural: required(lookup, env::CRD_PLURAL)?,
        namespace: (!is_true(lookup, env::CLUSTER_SCOPED)).then_some(namespace),
        name: required(lookup, env::OBJECT_NAME)?,
    })
}

impl reader::Config {
    /// Reads the environment of the container.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the variable.
    pub fn from_env(lookup: Lookup<'_>) -> Result<Self, Error> {
        let input_dir = lookup(env::INPUT_DIR).filter(|dir| !dir.is_empty());
        Ok(Self {
            address: address(lookup)?,
            input_dir: PathBuf::from(input_dir.unwrap_or_else(|| INPUT_DIR.to_owned())),
            is_dry_run: is_true(lookup, env::DRY_RUN),
        })
    }
}

impl status_writer::Config {
    /// Reads the environment of the container.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the variable.
    pub fn from_env(lookup: Lookup<'_>) -> Result<Self, Error> {
        let workflow = match text(lookup, env::WORKFLOW_TYPE).as_str() {
            "promise" => WorkflowType::Promise,
            "resource" => WorkflowType::Resource,
            other => {
                let name = env::WORKFLOW_TYPE;
                return Err(Error::Usage(format!(
                    "environment variable {name} must be promise or resource, found {other:?}"
                )));
            }
        };
        let action = match text(lookup, env::WORKFLOW_ACTION).as_str() {
            "delete" => Action::Delete,
            _ => Action::Configure,
        };
        Ok(Self {
            address: address(lookup)?,
            metadata_dir: PathBuf::from(METADATA_DIR),
            run: crate::status::Run {
                workflow,
                action,
                pipeline: required(lookup, env::PIPELINE_NAME)?,
                is_last: is_true(lookup, env::IS_LAST_PIPELINE),
                is_dry_run: is_true(lookup, env::DRY_RUN),
            },
            patience: status_writer::Patience::default(),
        })
    }
}

/// Flags of the work writer, sorted: so are they listed when they are missing.
const FLAGS: [&str; 7] = [
    "input-directory",
    "namespace",
    "pipeline-name",
    "promise-name",
    "resource-name",
    "resource-namespace",
    "workflow-type",
];
const REQUIRED_FLAGS: [&str; 3] = ["input-directory", "pipeline-name", "promise-name"];

fn work_writer_config(args: &[String], lookup: Lookup<'_>) -> Result<work_writer::Config, Error> {
    let mut given: Vec<(&str, String)> = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let flag = arg.strip_prefix("--").ok_or_else(|| Error::Usage(format!("unexpected argument {arg:?}")))?;
        let (name, inline) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value.to_owned())));
        let known = FLAGS.iter().find(|known| **known == name);
        let name = known.ok_or_else(|| Error::Usage(format!("unknown flag: --{name}")))?;
        let value = inline.or_else(|| rest.next().cloned());
        let value = value.ok_or_else(|| Error::Usage(format!("flag needs an argument: --{name}")))?;
        given.push((name, value));
    }
    let find = |name: &str| given.iter().rev().find(|(known, _)| *known == name).map(|(_, value)| value.clone());

    let missing: Vec<String> =
        REQUIRED_FLAGS.iter().filter(|name| find(name).is_none()).map(|name| format!("{name:?}")).collect();
    if !missing.is_empty() {
        return Err(Error::Usage(format!("required flag(s) {} not set", missing.join(", "))));
    }
    for name in ["input-directory", "promise-name", "pipeline-name"] {
        if find(name).is_some_and(|value| value.is_empty()) {
            return Err(Error::Usage(format!("must provide --{name}")));
        }
    }
    let value = |name: &str| find(name).unwrap_or_default();
    let or =
        |name: &str, default: &str| find(name).filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned());
    Ok(work_writer::Config {
        root: PathBuf::from(value("input-directory")),
        promise: value("promise-name"),
        pipeline: value("pipeline-name"),
        namespace: or("namespace", keys::SYSTEM_NAMESPACE),
        resource: value("resource-name"),
        resource_namespace: value("resource-namespace"),
        workflow_type: or("workflow-type", WorkflowType::Resource.as_str()),
        is_dry_run: is_true(lookup, env::DRY_RUN),
        sequence: text(lookup, env::SEQUENCE),
        trace_parent: text(lookup, env::TRACE_PARENT),
        trace_state: text(lookup, env::TRACE_STATE),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str], variables: &[(&str, &str)]) -> Result<Program, String> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Program::parse(&args, &lookup).map_err(|error| error.to_string())
    }

    const OBJECT: [(&str, &str); 5] = [
        ("KRATIX_OBJECT_GROUP", "example.org"),
        ("KRATIX_OBJECT_VERSION", "v1"),
        ("KRATIX_OBJECT_NAME", "demo"),
        ("KRATIX_CRD_PLURAL", "dbs"),
        ("KRATIX_CLUSTER_SCOPED", "false"),
    ];

    #[test]
    fn the_job_of_the_reference_is_understood() {
        let program = parse(
            &[
                "work-creator",
                "--input-directory",
                "/work-creator-files",
                "--promise-name",
                "p",
                "--pipeline-name",
                "pl",
                "--namespace",
                "ns",
                "--workflow-type",
                "resource",
                "--resource-name",
                "rr",
                "--resource-namespace=team",
            ],
            &[("KRATIX_TRACE_PARENT", "00-x"), ("KRATIX_DRY_RUN", "true"), ("KRATIX_JOB_SEQUENCE", "7")],
        );
        let Ok(Program::WorkWriter(config)) = program else { panic!("{program:?}") };
        assert_eq!((config.promise.as_str(), config.resource.as_str()), ("p", "rr"));
        assert_eq!((config.namespace.as_str(), config.resource_namespace.as_str()), ("ns", "team"));
        assert!(config.is_dry_run);
        assert_eq!((config.trace_parent.as_str(), config.sequence.as_str()), ("00-x", "7"));
    }

    #[test]
    fn missing_and_empty_flags_are_named() {
        assert_eq!(
            parse(&["work-creator", "--promise-name", "p"], &[]).unwrap_err(),
            r#"required flag(s) "input-directory", "pipeline-name" not set"#
        );
        let empty = ["work-creator", "--promise-name=", "--pipeline-name=x", "--input-directory=/x", "--namespace="];
        assert_eq!(parse(&empty, &[]).unwrap_err(), "must provide --promise-name");
        assert_eq!(parse(&["work-creator", "--nope"], &[]).unwrap_err(), "unknown flag: --nope");
        assert_eq!(parse(&["work-creator", "--namespace"], &[]).unwrap_err(), "flag needs an argument: --namespace");
        assert!(parse(&["dance"], &[]).is_err() && parse(&[], &[]).is_err());
    }

    #[test]
    fn an_empty_namespace_is_default_unless_the_object_has_none() {
        let Ok(Program::Reader(config)) = parse(&["reader"], &OBJECT) else { panic!() };
        assert_eq!(config.address.namespace.as_deref(), Some("default"));
        assert_eq!(config.input_dir, PathBuf::from("/kratix/input"));
        let mut cluster = OBJECT;
        cluster[4].1 = "true";
        let Ok(Program::Reader(config)) = parse(&["reader"], &cluster) else { panic!() };
        assert_eq!(config.address.namespace, None);
    }

    #[test]
    fn a_missing_variable_is_named() {
        assert_eq!(parse(&["reader"], &OBJECT[..2]).unwrap_err(), "environment variable KRATIX_CRD_PLURAL is not set");
        assert!(parse(&["update-status"], &OBJECT).unwrap_err().contains("KRATIX_WORKFLOW_TYPE"));
    }
}
