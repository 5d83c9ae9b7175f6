//! Nobody gives away what they do not have: writes of roles and bindings.

use embedded_apimachinery::{Qualified, Status};
use serde_json::Value;

use super::roles::{Attributes, Rule};
use crate::core::{Call, Core};
use crate::failure::Failure;
use crate::user::MASTERS;

const GROUP: &str = "rbac.authorization.k8s.io";
/// Single permissions compared for one write; who grants more at once needs the verb `escalate` or `bind`.
const ATOMS_MAX: usize = 100_000;
/// Permissions named in a refusal.
const NAMED_MAX: usize = 10;

impl Core {
    /// Refuses roles with more permissions than their writer has, and bindings to such roles, unless the writer may
    /// `escalate` or `bind` them.
    pub(crate) fn check_grant(&self, call: &Call, new: &Value, old: Option<&Value>) -> Result<(), Failure> {
        if call.served.group != GROUP || call.user.is_in(MASTERS) {
            return Ok(());
        }
        let unchanged = |fields: [&str; 2]| old.is_some_and(|old| fields.iter().all(|one| old[*one] == new[*one]));
        let may = |verb: &str, resource: &str, name: &str| {
            let attributes = Attributes {
                verb: verb.to_owned(),
                group: GROUP.to_owned(),
                version: "v1".to_owned(),
                resource: resource.to_owned(),
                namespace: call.namespace.clone(),
                name: name.to_owned(),
                ..Attributes::default()
            };
            self.allows(&call.user, &attributes)
        };
        let granted = match call.served.plural.as_str() {
            plural @ ("roles" | "clusterroles") => {
                if unchanged(["rules", "aggregationRule"]) || may("escalate", plural, &call.name) {
                    return Ok(());
                }
                let mut rules: Vec<Rule> = serde_json::from_value(new["rules"].clone()).unwrap_or_default();
                if !new["aggregationRule"].is_null() {
                    // What it will hold depends on labels of others: only who has everything can be sure.
                    rules.extend(everything());
                }
                rules
            }
            "rolebindings" | "clusterrolebindings" => {
                let text = |key: &str| new["roleRef"][key].as_str().unwrap_or_default();
                let (kind, name) = (text("kind"), text("name"));
                let plural = if kind == "Role" { "roles" } else { "clusterroles" };
                if unchanged(["roleRef", "subjects"]) || may("bind", plural, name) {
                    return Ok(());
                }
                let rules = self.roles.referenced(&self.store, kind, &call.namespace, name);
                rules.ok_or_else(|| Status::not_found(Qualified::new(GROUP, plural), name))?
            }
            _ => return Ok(()),
        };
        let held = self.roles.held(&self.store, &call.user, &call.namespace);
        let missing = missing(&held, &granted);
        if missing.is_empty() {
            return Ok(());
        }
        let why = format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            call.user.name,
            call.user.groups,
            missing.join("\n")
        );
        Err(Status::forbidden(call.qualified(), &call.name, &why).into())
    }
}

fn everything() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    [
        Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
        Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
    ]
}

/// Returns what of `granted` no rule of `held` covers, in words, at most [`NAMED_MAX`].
fn missing(held: &[Rule], granted: &[Rule]) -> Vec<String> {
    let mut missing = Vec::new();
    let mut compared = 0;
    for rule in granted {
        if held.iter().any(|own| covers(own, rule)) {
            continue;
        }
        for atom in atoms(rule) {
            compared += 1;
            if compared > ATOMS_MAX {
                missing.push(format!("more than {ATOMS_MAX} permissions at once"));
                return missing;
            }
            if !held.iter().any(|own| covers(own, &atom)) {
                missing.push(name(&atom));
                if missing.len() == NAMED_MAX {
                    return missing;
                }
            }
        }
    }
    missing
}

/// Takes a rule apart into rules of one verb for one thing each.
fn atoms(rule: &Rule) -> impl Iterator<Item = Rule> + '_ {
    let paths = rule.verbs.iter().flat_map(|verb| {
        let atom = |path: &String| Rule {
            verbs: vec![verb.clone()],
            non_resource_urls: vec![path.clone()],
            ..Rule::default()
        };
        rule.non_resource_urls.iter().map(atom)
    });
    let names = || {
        let every = rule.resource_names.is_empty().then(Vec::new);
        every.into_iter().chain(rule.resource_names.iter().map(|name| vec![name.clone()]))
    };
    let resources = rule.verbs.iter().flat_map(move |verb| {
        rule.api_groups.iter().flat_map(move |group| {
            rule.resources.iter().flat_map(move |resource| {
                names().map(move |names| Rule {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    resource_names: names,
                    ..Rule::default()
                })
            })
        })
    });
    paths.chain(resources)
}

/// Whether everything that `wanted` allows is allowed by `own` alone.
fn covers(own: &Rule, wanted: &Rule) -> bool {
    let has =
        |own: &[String], wanted: &[String]| wanted.iter().all(|one| own.iter().any(|all| all == "*" || all == one));
    let resource = |one: &String| {
        own.resources.iter().any(|all| {
            let below = one.split_once('/').map(|(_, below)| format!("*/{below}"));
            all == "*" || all == one || below.as_ref() == Some(all)
        })
    };
    let path = |one: &String| {
        own.non_resource_urls.iter().any(|all| match all.strip_suffix('*') {
            Some(prefix) => one.starts_with(prefix),
            None => all == one,
        })
    };
    let named = own.resource_names.is_empty()
        || !wanted.resource_names.is_empty()
            && wanted.resource_names.iter().all(|one| own.resource_names.contains(one));
    has(&own.verbs, &wanted.verbs)
        && has(&own.api_groups, &wanted.api_groups)
        && wanted.resources.iter().all(resource)
        && wanted.non_resource_urls.iter().all(path)
        && named
}

/// Names one permission as the real server does.
fn name(atom: &Rule) -> String {
    let parts = [
        ("APIGroups", &atom.api_groups),
        ("Resources", &atom.resources),
        ("ResourceNames", &atom.resource_names),
        ("NonResourceURLs", &atom.non_resource_urls),
        ("Verbs", &atom.verbs),
    ];
    let texts = parts.iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| format!("{name}:{list:?}"));
    format!("{{{}}}", texts.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(value: Value) -> Vec<Rule> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_is_held_in_pieces_may_be_granted_in_one() {
        let held = rules(json!([
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods", "*/status"], "verbs": ["list"]},
        ]));
        let both = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]);
        assert!(missing(&held, &rules(both)).is_empty());
        let below = json!([{"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["list"]}]);
        assert!(missing(&held, &rules(below)).is_empty());
        let more = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "delete"]}]);
        assert_eq!(missing(&held, &rules(more)), [r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}"#]);
    }

    #[test]
    fn names_and_paths_are_no_more_than_themselves() {
        let held = rules(json!([
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["*"]},
            {"nonResourceURLs": ["/healthz*"], "verbs": ["get"]},
        ]));
        let fits = json!([
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get"]},
            {"nonResourceURLs": ["/healthz/x"], "verbs": ["get"]},
        ]);
        assert!(missing(&held, &rules(fits)).is_empty());
        let every = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
        assert_eq!(missing(&held, &rules(every)).len(), 1);
        let other = json!([{"nonResourceURLs": ["/"], "verbs": ["get"]}]);
        assert_eq!(missing(&held, &rules(other)).len(), 1);
    }
}
