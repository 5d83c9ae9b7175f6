//! CRDs: their resources go before them, and names that become free are taken.

use std::sync::Arc;

use crate::catalog::Served;
use crate::core::{CRDS, Core};
use crate::failure::Failure;
use crate::rest::{CRD_CLEANUP, DeleteOptions};
use crate::store::{Record, Scope};

use super::{Failures, remove_finalizer};

const USER: &str = "system:apiserver";

impl Core {
    /// Deletes the custom resources of a CRD on its way out, and lets it go when none is left.
    pub(super) async fn look_at_crd(&self, served: &Arc<Served>, crd: &Arc<Record>) -> Result<(), Failure> {
        if !crd.is_deleting() {
            return Ok(());
        }
        let value = crd.value();
        let text = |key: &str| value["spec"][key].as_str().unwrap_or_default().to_owned();
        let plural = value["spec"]["names"]["plural"].as_str().unwrap_or_default();
        let table: Arc<str> = format!("{}/{plural}", text("group")).into();
        let scope = Scope::table(table.clone());
        let all =
            || self.store.list(&scope, None, None, None, |_| true).expect("the present is never compacted").records;
        let mut failures = Failures::default();
        if let Some(resource) = self.catalog.snapshot().find_table(&table) {
            for record in all().iter().filter(|record| !record.is_deleting()) {
                failures.note(self.delete_as(USER, resource, record, DeleteOptions::background()).await);
            }
        }
        if all().is_empty() {
            return self.edit_as(USER, served, crd, "", |object| remove_finalizer(object, CRD_CLEANUP)).await;
        }
        failures.into_result()
    }

    /// Gives CRDs whose names were taken another chance: writing one establishes it.
    pub(super) async fn reconsider_crds(&self) -> Result<(), Failure> {
        let Some(served) = self.catalog.snapshot().find_table(CRDS).cloned() else { return Ok(()) };
        let refused = |record: &Record| !crate::catalog::is_established(&record.value());
        let page = self.store.list(&Scope::table(CRDS), None, None, None, refused);
        let mut failures = Failures::default();
        for record in page.expect("the present is never compacted").records {
            failures.note(self.edit_as(USER, &served, &record, "status", |_| {}).await);
        }
        failures.into_result()
    }
}
