//! What can be stored and is not acted upon here: said at once, instead of found out later.

use embedded_apimachinery::field::{Error, Path};
use serde_json::Value;

use crate::catalog::Served;
use crate::core::is_crd;

const WEBHOOKS: &str = "this server calls no admission webhooks: the configuration is stored and has no effect";
const CONVERSION: &str = "spec.conversion: this server calls no conversion webhooks: objects are not converted";
const VERSIONS: &str = "this server calls no conversion webhooks; with more than one version use \"None\", or keep to \
    one version";

/// Returns the mistakes of asking for what this server does not do, and adds warnings where it does no harm.
///
/// `old` is given on update: what is stored already is not refused again, so that it can still be changed and deleted.
pub(crate) fn check(served: &Served, new: &Value, old: Option<&Value>, warnings: &mut Vec<String>) -> Vec<Error> {
    let asked = |object: &Value| {
        let versions = object["spec"]["versions"].as_array().map_or(0, Vec::len);
        (object["spec"]["conversion"]["strategy"] == "Webhook").then_some(versions)
    };
    if served.group == "admissionregistration.k8s.io" {
        warnings.push(WEBHOOKS.to_owned());
    } else if is_crd(served)
        && let Some(versions) = asked(new)
    {
        let known = old.and_then(asked).is_some_and(|known| known >= versions);
        if versions > 1 && !known {
            let path = Path::Root;
            let path = path.child("spec");
            let path = path.child("conversion");
            return vec![Error::invalid(&path.child("strategy"), "Webhook", VERSIONS)];
        }
        warnings.push(CONVERSION.to_owned());
    }
    Vec::new()
}
