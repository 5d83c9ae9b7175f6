//! The built-in resources.

use std::sync::Arc;

use crate::resource::Resource;
use crate::schema::Schema;

/// The rules of one built-in kind.
#[derive(Debug)]
pub struct Kind {}

impl Kind {
    pub(crate) fn schema(&self) -> &Arc<Schema> {
        static SCHEMA: std::sync::LazyLock<Arc<Schema>> = std::sync::LazyLock::new(Arc::default);
        &SCHEMA
    }
}

/// Returns every built-in resource.
pub fn resources() -> &'static [Arc<Resource>] {
    &[]
}

/// Returns the built-in resource of that group, version and plural name.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Arc<Resource>> {
    resources().iter().find(|one| one.group == group && one.version == version && one.plural == plural)
}
