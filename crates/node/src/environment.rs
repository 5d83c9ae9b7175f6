//! Environment variables, command and arguments of a container.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};

use crate::downward::{self, Place};
use crate::image;
use crate::objects::{Error, Objects};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Collects the variables of a container in the order in which later ones win.
pub(crate) async fn resolve(
    objects: &Objects,
    pod: &Pod,
    container: &Container,
    place: &Place,
    service: &[(String, String)],
) -> Result<BTreeMap<String, String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut source = Source { objects, namespace, config_maps: HashMap::new(), secrets: HashMap::new() };
    let mut variables: BTreeMap<String, String> = service.iter().cloned().collect();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        let data = if let Some(reference) = &from.config_map_ref {
            source.config_map(&reference.name, reference.optional.unwrap_or(false)).await
        } else if let Some(reference) = &from.secret_ref {
            source.secret(&reference.name, reference.optional.unwrap_or(false)).await
        } else {
            Ok(None)
        };
        for (key, value) in data.map_err(|error| error.to_string())?.into_iter().flatten() {
            variables.insert(format!("{prefix}{key}"), String::from_utf8_lossy(value).into_owned());
        }
    }
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(&mut source, pod, container, place, variable, &variables).await? {
            variables.insert(variable.name.clone(), value);
        }
    }
    Ok(variables)
}

/// Returns the value of one variable; `None` for an optional reference to nothing.
async fn value_of(
    source: &mut Source<'_>,
    pod: &Pod,
    container: &Container,
    place: &Place,
    variable: &EnvVar,
    known: &BTreeMap<String, String>,
) -> Result<Option<String>, String> {
    let Some(from) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or_default(), known)));
    };
    if let Some(reference) = &from.field_ref {
        return downward::field(pod, place, reference).map(Some);
    }
    if let Some(reference) = &from.resource_field_ref {
        return downward::resource(pod, container, reference).map(Some);
    }
    let namespace = source.namespace.to_owned();
    let (kind, name, key, optional, data) = if let Some(reference) = &from.config_map_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let data = source.config_map(&reference.name, optional).await;
        ("ConfigMap", &reference.name, &reference.key, optional, data)
    } else if let Some(reference) = &from.secret_key_ref {
        let optional = reference.optional.unwrap_or(false);
        let data = source.secret(&reference.name, optional).await;
        ("Secret", &reference.name, &reference.key, optional, data)
    } else {
        return Err(format!("variable {} has a source that this node does not support", variable.name));
    };
    let value = data.map_err(|error| error.to_string())?.and_then(|data| data.get(key));
    match value {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional => Ok(None),
        None => Err(Error::NoKey { kind, namespace, name: name.clone(), key: key.clone() }.to_string()),
    }
}

type Data = Option<BTreeMap<String, Vec<u8>>>;

/// Objects read once for all variables of a container.
struct Source<'a> {
    objects: &'a Objects,
    namespace: &'a str,
    config_maps: HashMap<String, Data>,
    secrets: HashMap<String, Data>,
}

impl Source<'_> {
    async fn config_map(&mut self, name: &str, optional: bool) -> Result<Option<&BTreeMap<String, Vec<u8>>>, Error> {
        if !self.config_maps.contains_key(name) {
            let data = self.objects.config_map(self.namespace, name).await?;
            self.config_maps.insert(name.to_owned(), data);
        }
        match self.config_maps[name].as_ref() {
            None if !optional => Err(Error::Missing { kind: "configmap", name: name.to_owned() }),
            data => Ok(data),
        }
    }

    async fn secret(&mut self, name: &str, optional: bool) -> Result<Option<&BTreeMap<String, Vec<u8>>>, Error> {
        if !self.secrets.contains_key(name) {
            let data = self.objects.secret(self.namespace, name).await?;
            self.secrets.insert(name.to_owned(), data);
        }
        match self.secrets[name].as_ref() {
            None if !optional => Err(Error::Missing { kind: "secret", name: name.to_owned() }),
            data => Ok(data),
        }
    }
}

/// Adds what the image and the runtime provide under what the pod says.
pub(crate) fn complete(
    own: BTreeMap<String, String>,
    image: &image::Config,
    home: &str,
    hostname: &str,
) -> Vec<(String, String)> {
    let mut all: BTreeMap<String, String> =
        [("PATH", PATH), ("HOME", home), ("HOSTNAME", hostname)].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    all.extend(image.env.iter().filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())));
    all.extend(own);
    // A name that the system cannot carry would make the start fail as a whole.
    all.into_iter().filter(|(name, _)| !name.is_empty() && !name.contains(['=', '\0'])).collect()
}

/// Combines command, arguments and the image's own. `None` if nothing says what to run.
pub(crate) fn arguments(
    container: &Container,
    image: &image::Config,
    variables: &BTreeMap<String, String>,
) -> Option<Vec<String>> {
    let own = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter().flatten().map(|text| expand(text, variables)).collect()
    };
    let (command, args) = (own(&container.command), own(&container.args));
    let mut argv = if command.is_empty() { image.entrypoint.clone() } else { command.clone() };
    if !args.is_empty() {
        argv.extend(args);
    } else if command.is_empty() {
        argv.extend(image.cmd.iter().cloned());
    }
    (!argv.is_empty()).then_some(argv)
}

/// Replaces `$(NAME)` by the variable's value; `$$` is a dollar sign, and unknown names stay as they are.
pub(crate) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
            match variables.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            expanded.push('$');
        }
    }
    expanded + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("EMPTY".to_owned(), String::new())]);
        let cases = [
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(B)", "$(B)"),
            ("$(EMPTY)|", "|"),
            ("$A ${A} $", "$A ${A} $"),
            ("$(A", "$(A"),
            ("100%", "100%"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }

    #[test]
    fn command_and_args_override_the_image_as_documented() {
        let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let image =
            image::Config { entrypoint: strings(&["/entry"]), cmd: strings(&["default"]), ..Default::default() };
        let cases: [(&[&str], &[&str], &[&str]); 4] = [
            (&[], &[], &["/entry", "default"]),
            (&[], &["x"], &["/entry", "x"]),
            (&["sh"], &[], &["sh"]),
            (&["sh"], &["-c", "$(A)"], &["sh", "-c", "1"]),
        ];
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (command, args, expected) in cases {
            let container =
                Container { command: Some(strings(command)), args: Some(strings(args)), ..Default::default() };
            assert_eq!(arguments(&container, &image, &variables).unwrap(), strings(expected));
        }
        assert_eq!(arguments(&Container::default(), &image::Config::default(), &variables), None);
    }

    #[test]
    fn the_pod_wins_over_the_image_and_the_image_over_defaults() {
        let image =
            image::Config { env: vec!["PATH=/image".into(), "A=image".into(), "broken".into()], ..Default::default() };
        let own = BTreeMap::from([("A".to_owned(), "pod".to_owned()), ("B=C".to_owned(), "x".to_owned())]);
        let env = complete(own, &image, "/home/app", "pod-1");
        let expected = [("A", "pod"), ("HOME", "/home/app"), ("HOSTNAME", "pod-1"), ("PATH", "/image")];
        assert_eq!(env, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
