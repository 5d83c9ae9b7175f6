//! The table of built-in resources.

use std::sync::{Arc, OnceLock};

use serde_json::Value;

use super::{Kind, access, basics, batch, pod, pod_rules, workload};
use crate::field;
use crate::resource::{Origin, Part, Resource, Subresource};
use crate::text;

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const NO_COLLECTION: &[&str] = &["create", "delete", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const STATUS: &[&str] = &["get", "patch", "update"];

struct Row {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    verbs: &'static [&'static str],
    /// Name, kind with group and version if not the resource's own, verbs.
    sub: &'static [(&'static str, &'static str, &'static [&'static str])],
    /// Package of the definition.
    package: &'static str,
    rules: Rules,
}

#[derive(Clone, Copy)]
struct Rules {
    name: fn(&str) -> Vec<String>,
    default: fn(&mut Value),
    create: fn(&mut Value, &str),
    update: fn(&mut Value, &Value, Part),
    validate: fn(&Value, &mut Vec<field::Error>),
    validate_update: fn(&Value, &Value, Part, &mut Vec<field::Error>),
    generation: bool,
}

const PLAIN: Rules = Rules {
    name: text::check_subdomain,
    default: |_| {},
    create: |_, _| {},
    update: |_, _, _| {},
    validate: |_, _| {},
    validate_update: |_, _, _, _| {},
    generation: false,
};

const CORE: &str = "io.k8s.api.core.v1";
const WITH_STATUS: &[(&str, &str, &[&str])] = &[("status", "", STATUS)];

const ROWS: &[Row] = &[
    Row {
        short: &["cm"],
        rules: Rules {
            validate: basics::validate_config_map,
            validate_update: basics::validate_config_map_update,
            ..PLAIN
        },
        ..namespaced("", "ConfigMap", "configmaps", CORE)
    },
    Row { short: &["ep"], ..namespaced("", "Endpoints", "endpoints", CORE) },
    Row {
        short: &["ev"],
        rules: Rules { default: basics::default_event, validate: basics::validate_event, ..PLAIN },
        ..namespaced("", "Event", "events", CORE)
    },
    Row { short: &["limits"], ..namespaced("", "LimitRange", "limitranges", CORE) },
    Row {
        short: &["ns"],
        namespaced: false,
        verbs: NO_COLLECTION,
        sub: &[("finalize", "", &["update"]), ("status", "", STATUS)],
        rules: Rules {
            name: text::check_label,
            default: basics::default_namespace,
            create: basics::create_namespace,
            update: basics::update_namespace,
            ..PLAIN
        },
        ..namespaced("", "Namespace", "namespaces", CORE)
    },
    Row {
        short: &["no"],
        namespaced: false,
        sub: WITH_STATUS,
        rules: Rules { default: basics::default_node, ..PLAIN },
        ..namespaced("", "Node", "nodes", CORE)
    },
    Row {
        short: &["pvc"],
        sub: WITH_STATUS,
        rules: Rules { default: basics::default_claim, create: basics::create_claim, ..PLAIN },
        ..namespaced("", "PersistentVolumeClaim", "persistentvolumeclaims", CORE)
    },
    Row {
        short: &["po"],
        categories: &["all"],
        sub: &[
            ("binding", "/v1/Binding", CREATE),
            ("ephemeralcontainers", "", STATUS),
            ("eviction", "policy/v1/Eviction", CREATE),
            ("log", "", &["get"]),
            ("status", "", STATUS),
        ],
        rules: Rules {
            default: pod::default_pod,
            create: pod::create_pod,
            update: pod::update_pod,
            validate: pod_rules::validate_pod,
            validate_update: pod_rules::validate_pod_update,
            generation: true,
            ..PLAIN
        },
        ..namespaced("", "Pod", "pods", CORE)
    },
    Row { short: &["quota"], sub: WITH_STATUS, ..namespaced("", "ResourceQuota", "resourcequotas", CORE) },
    Row {
        rules: Rules {
            default: basics::default_secret,
            validate: basics::validate_secret,
            validate_update: basics::validate_secret_update,
            ..PLAIN
        },
        ..namespaced("", "Secret", "secrets", CORE)
    },
    Row {
        short: &["sa"],
        sub: &[("token", "authentication.k8s.io/v1/TokenRequest", CREATE)],
        ..namespaced("", "ServiceAccount", "serviceaccounts", CORE)
    },
    Row {
        short: &["svc"],
        categories: &["all"],
        sub: WITH_STATUS,
        rules: Rules {
            name: text::check_label_1035,
            default: basics::default_service,
            create: basics::create_service,
            update: basics::update_service,
            validate: basics::validate_service,
            ..PLAIN
        },
        ..namespaced("", "Service", "services", CORE)
    },
    Row {
        short: &["cj"],
        categories: &["all"],
        sub: WITH_STATUS,
        rules: Rules {
            name: batch::check_cron_job_name,
            default: batch::default_cron_job,
            validate: batch::validate_cron_job,
            generation: true,
            ..PLAIN
        },
        ..namespaced("batch", "CronJob", "cronjobs", "io.k8s.api.batch.v1")
    },
    Row {
        categories: &["all"],
        sub: WITH_STATUS,
        rules: Rules {
            default: batch::default_job,
            create: batch::create_job,
            validate: batch::validate_job,
            validate_update: batch::validate_job_update,
            generation: true,
            ..PLAIN
        },
        ..namespaced("batch", "Job", "jobs", "io.k8s.api.batch.v1")
    },
    Row {
        short: &["ds"],
        categories: &["all"],
        sub: WITH_STATUS,
        rules: Rules {
            default: workload::default_daemon_set,
            validate: workload::validate_always_template,
            validate_update: workload::validate_selector_update,
            generation: true,
            ..PLAIN
        },
        ..namespaced("apps", "DaemonSet", "daemonsets", "io.k8s.api.apps.v1")
    },
    Row {
        short: &["deploy"],
        categories: &["all"],
        sub: WITH_STATUS,
        rules: Rules {
            default: workload::default_deployment,
            validate: workload::validate_always_template,
            validate_update: workload::validate_selector_update,
            generation: true,
            ..PLAIN
        },
        ..namespaced("apps", "Deployment", "deployments", "io.k8s.api.apps.v1")
    },
    Row {
        short: &["rs"],
        categories: &["all"],
        sub: WITH_STATUS,
        rules: Rules {
            default: workload::default_replica_set,
            validate: workload::validate_always_template,
            validate_update: workload::validate_selector_update,
            generation: true,
            ..PLAIN
        },
        ..namespaced("apps", "ReplicaSet", "replicasets", "io.k8s.api.apps.v1")
    },
    Row {
        short: &["sts"],
        categories: &["all"],
        sub: WITH_STATUS,
        rules: Rules {
            default: workload::default_stateful_set,
            validate: workload::validate_always_template,
            validate_update: workload::validate_selector_update,
            generation: true,
            ..PLAIN
        },
        ..namespaced("apps", "StatefulSet", "statefulsets", "io.k8s.api.apps.v1")
    },
    Row {
        namespaced: false,
        rules: Rules {
            name: text::check_path_segment,
            default: access::default_binding,
            validate: access::validate_cluster_binding,
            validate_update: access::validate_binding_update,
            ..PLAIN
        },
        ..namespaced("rbac.authorization.k8s.io", "ClusterRoleBinding", "clusterrolebindings", "io.k8s.api.rbac.v1")
    },
    Row {
        namespaced: false,
        rules: Rules {
            name: text::check_path_segment,
            default: access::default_role,
            validate: access::validate_cluster_role,
            ..PLAIN
        },
        ..namespaced("rbac.authorization.k8s.io", "ClusterRole", "clusterroles", "io.k8s.api.rbac.v1")
    },
    Row {
        rules: Rules {
            name: text::check_path_segment,
            default: access::default_binding,
            validate: access::validate_binding,
            validate_update: access::validate_binding_update,
            ..PLAIN
        },
        ..namespaced("rbac.authorization.k8s.io", "RoleBinding", "rolebindings", "io.k8s.api.rbac.v1")
    },
    Row {
        rules: Rules {
            name: text::check_path_segment,
            default: access::default_role,
            validate: access::validate_role,
            ..PLAIN
        },
        ..namespaced("rbac.authorization.k8s.io", "Role", "roles", "io.k8s.api.rbac.v1")
    },
    Row {
        short: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
        sub: WITH_STATUS,
        rules: Rules {
            default: crate::crd::default,
            create: |object, _| crate::crd::prepare_create(object),
            update: |new, _, part| {
                if part == Part::Main {
                    crate::crd::note_storage_version(new);
                }
            },
            validate: |object, errors| errors.extend(crate::crd::validate(object, None)),
            validate_update: |new, old, _, errors| errors.extend(crate::crd::validate(new, Some(old))),
            generation: true,
            ..PLAIN
        },
        ..namespaced(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "customresourcedefinitions",
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
        )
    },
    Row {
        rules: Rules { validate: basics::validate_lease, ..PLAIN },
        ..namespaced("coordination.k8s.io", "Lease", "leases", "io.k8s.api.coordination.v1")
    },
    Row {
        short: &["ev"],
        rules: Rules { default: basics::default_event, ..PLAIN },
        ..namespaced("events.k8s.io", "Event", "events", "io.k8s.api.events.v1")
    },
    Row {
        namespaced: false,
        verbs: CREATE,
        ..namespaced("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews", "io.k8s.api.authentication.v1")
    },
    Row {
        namespaced: false,
        verbs: CREATE,
        ..namespaced("authentication.k8s.io", "TokenReview", "tokenreviews", "io.k8s.api.authentication.v1")
    },
    Row {
        verbs: CREATE,
        ..namespaced(
            "authorization.k8s.io",
            "LocalSubjectAccessReview",
            "localsubjectaccessreviews",
            "io.k8s.api.authorization.v1",
        )
    },
    Row {
        namespaced: false,
        verbs: CREATE,
        rules: Rules { validate: access::validate_self_review, ..PLAIN },
        ..namespaced(
            "authorization.k8s.io",
            "SelfSubjectAccessReview",
            "selfsubjectaccessreviews",
            "io.k8s.api.authorization.v1",
        )
    },
    Row {
        namespaced: false,
        verbs: CREATE,
        ..namespaced(
            "authorization.k8s.io",
            "SelfSubjectRulesReview",
            "selfsubjectrulesreviews",
            "io.k8s.api.authorization.v1",
        )
    },
    Row {
        namespaced: false,
        verbs: CREATE,
        rules: Rules { validate: access::validate_self_review, ..PLAIN },
        ..namespaced(
            "authorization.k8s.io",
            "SubjectAccessReview",
            "subjectaccessreviews",
            "io.k8s.api.authorization.v1",
        )
    },
    Row {
        categories: &["api-extensions"],
        namespaced: false,
        rules: Rules { default: access::default_webhooks, generation: true, ..PLAIN },
        ..namespaced(
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
            "io.k8s.api.admissionregistration.v1",
        )
    },
    Row {
        categories: &["api-extensions"],
        namespaced: false,
        rules: Rules { default: access::default_webhooks, generation: true, ..PLAIN },
        ..namespaced(
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            "io.k8s.api.admissionregistration.v1",
        )
    },
    Row {
        namespaced: false,
        rules: Rules { generation: true, ..PLAIN },
        ..namespaced("networking.k8s.io", "IngressClass", "ingressclasses", "io.k8s.api.networking.v1")
    },
    Row {
        short: &["ing"],
        sub: WITH_STATUS,
        rules: Rules { generation: true, ..PLAIN },
        ..namespaced("networking.k8s.io", "Ingress", "ingresses", "io.k8s.api.networking.v1")
    },
    Row {
        short: &["netpol"],
        rules: Rules { default: workload::default_network_policy, generation: true, ..PLAIN },
        ..namespaced("networking.k8s.io", "NetworkPolicy", "networkpolicies", "io.k8s.api.networking.v1")
    },
];

const fn namespaced(group: &'static str, kind: &'static str, plural: &'static str, package: &'static str) -> Row {
    Row {
        group,
        kind,
        plural,
        short: &[],
        categories: &[],
        namespaced: true,
        verbs: ALL,
        sub: &[],
        package,
        rules: PLAIN,
    }
}

/// Builds the descriptors; called once.
pub(super) fn build() -> Vec<Arc<Resource>> {
    let mut out: Vec<Arc<Resource>> = ROWS.iter().map(|row| Arc::new(row.build())).collect();
    out.sort_by(|a, b| (&a.group, &a.version, &a.plural).cmp(&(&b.group, &b.version, &b.plural)));
    out
}

impl Row {
    fn build(&self) -> Resource {
        let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<String>>();
        let sub = |(name, kind, verbs): &(&str, &str, &'static [&'static str])| {
            let mut parts = kind.splitn(3, '/');
            let (group, version, kind) = match (parts.next(), parts.next(), parts.next()) {
                (Some(group), Some(version), Some(kind)) => (group, version, kind),
                _ => (self.group, "v1", self.kind),
            };
            Subresource {
                name: (*name).to_owned(),
                group: group.to_owned(),
                version: version.to_owned(),
                kind: kind.to_owned(),
                verbs: verbs.to_vec(),
            }
        };
        // Leaked once per process: descriptors of built-ins live as long as it does.
        let definition: &'static str = format!("{}.{}", self.package, self.kind).leak();
        let rules = self.rules;
        let kind: &'static Kind = Box::leak(Box::new(Kind {
            definition,
            name: rules.name,
            default: rules.default,
            create: rules.create,
            update: rules.update,
            validate: rules.validate,
            validate_update: rules.validate_update,
            has_generation: rules.generation,
            has_status: self.sub.iter().any(|(name, ..)| *name == "status"),
            schema: OnceLock::new(),
        }));
        Resource {
            group: self.group.to_owned(),
            version: "v1".to_owned(),
            kind: self.kind.to_owned(),
            list_kind: format!("{}List", self.kind),
            plural: self.plural.to_owned(),
            singular: self.kind.to_lowercase(),
            short_names: texts(self.short),
            categories: texts(self.categories),
            namespaced: self.namespaced,
            verbs: self.verbs.to_vec(),
            subresources: self.sub.iter().map(sub).collect(),
            origin: Origin::Builtin(kind),
        }
    }
}
