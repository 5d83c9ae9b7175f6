//! What all kinds share: group and version, the way an object is written, tolerant readers of single fields.

use serde::{Deserialize, Deserializer, Serialize};

use crate::Time;

/// A reference to a Secret; cluster-scoped kinds need both parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct SecretRef {
    /// Name of the Secret.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Namespace of the Secret.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// Reads `null` as the empty value, as the reference does for every field that is not a pointer.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a timestamp; one that is not a timestamp is read as absent, because no schema checks it.
pub(crate) fn time_or_none<'de, D>(deserializer: D) -> Result<Option<Time>, D::Error>
where
    D: Deserializer<'de>,
{
    let text = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(text.and_then(|value| value.as_str()?.parse().ok()).map(Time))
}

/// Defines a custom resource: its struct, constructor, `kube::Resource` and the form in which it is written.
///
/// The first block lists the field that is always written (`spec`), the second those that may be absent.
macro_rules! resource {
    (
        $(#[$meta:meta])*
        $kind:ident, $plural:literal, $scope:ident,
        { $($(#[$field_meta:meta])* $field:ident: $field_type:ty)? }
        { $($(#[$optional_meta:meta])* $optional:ident: $optional_type:ty)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $kind {
            /// Name, namespace, labels, annotations, owners.
            pub metadata: $crate::ObjectMeta,
            $($(#[$field_meta])* pub $field: $field_type,)?
            $($(#[$optional_meta])* pub $optional: Option<$optional_type>,)?
        }

        impl $kind {
            /// The kind as it is written.
            pub const KIND: &'static str = stringify!($kind);
            /// The plural used in URLs and in the name of the CRD.
            pub const PLURAL: &'static str = $plural;

            $(
            /// Returns a new object; a namespace is set through `metadata`.
            pub fn new(name: &str, $field: $field_type) -> Self {
                let metadata = $crate::ObjectMeta { name: Some(name.to_owned()), ..Default::default() };
                Self { metadata, $field, ..Default::default() }
            }
            )?
        }

        impl kube::Resource for $kind {
            type DynamicType = ();
            type Scope = k8s_openapi::$scope;

            fn kind(_: &()) -> std::borrow::Cow<'_, str> {
                Self::KIND.into()
            }
            fn group(_: &()) -> std::borrow::Cow<'_, str> {
                $crate::keys::GROUP.into()
            }
            fn version(_: &()) -> std::borrow::Cow<'_, str> {
                $crate::keys::VERSION.into()
            }
            fn plural(_: &()) -> std::borrow::Cow<'_, str> {
                Self::PLURAL.into()
            }
            fn meta(&self) -> &$crate::ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut $crate::ObjectMeta {
                &mut self.metadata
            }
        }

        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap;
                let mut map = serializer.serialize_map(None)?;
                map.serialize_entry("apiVersion", $crate::keys::API_VERSION)?;
                map.serialize_entry("kind", Self::KIND)?;
                map.serialize_entry("metadata", &self.metadata)?;
                $(map.serialize_entry(stringify!($field), &self.$field)?;)?
                $(if let Some(value) = &self.$optional {
                    map.serialize_entry(stringify!($optional), value)?;
                })?
                map.end()
            }
        }

        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                struct Object {
                    #[serde(default)]
                    metadata: $crate::ObjectMeta,
                    $(#[serde(default, deserialize_with = "crate::object::null_as_default")] $field: $field_type,)?
                    $(#[serde(default)] $optional: Option<$optional_type>,)?
                }
                let object = Object::deserialize(deserializer)?;
                Ok(Self {
                    metadata: object.metadata,
                    $($field: object.$field,)?
                    $($optional: object.$optional,)?
                })
            }
        }
    };
}

pub(crate) use resource;
