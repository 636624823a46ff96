//! The JSON schema of `proxy.toml`, for editors and checkers: every key with what it allows, made of the same table
//! that reads the file. Rules between keys are not in it; `pgweir check` knows them.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::form::KeyForm;
use super::password::CommandKeys;
use super::raw::{FORMER_NAMES, KeyTable, KeyVisitor, Nature};
use super::role::RoleKeys;
use super::show::sections;
use super::{Config, Database, LaneKeys, PasswordSource, Secret};

/// The schema of a whole file.
pub fn schema() -> Value {
    let mut root = SchemaObject::default();
    sections(&mut root, &Config::default());
    for (name, of_each) in
        [("databases", object_of(&mut Database::default())), ("roles", object_of(&mut RoleKeys::default()))]
    {
        root.insert(name, json!({ "type": "object", "additionalProperties": of_each }));
    }
    root.insert("lanes", json!({ "type": "array", "items": object_of(&mut LaneKeys::default()) }));
    let mut schema = root.into_value();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "proxy.toml of pgweir".into();
    schema
}

/// The visitor that makes properties of the keys of one table.
#[derive(Default)]
struct SchemaObject {
    properties: Map<String, Value>,
    required: Vec<&'static str>,
}

fn object_of(table: &mut impl KeyTable) -> Value {
    let mut object = SchemaObject::default();
    table.keys(&mut object);
    object.into_value()
}

impl SchemaObject {
    fn into_value(self) -> Value {
        let mut value = json!({ "type": "object", "properties": self.properties, "additionalProperties": false });
        if !self.required.is_empty() {
            value["required"] = json!(self.required);
        }
        value
    }

    fn insert(&mut self, name: &str, schema: Value) {
        for (_, former) in FORMER_NAMES.iter().filter(|(now, _)| *now == name) {
            let mut deprecated = schema.clone();
            deprecated["deprecated"] = true.into();
            self.properties.insert((*former).to_owned(), deprecated);
        }
        self.properties.insert(name.to_owned(), schema);
    }

    fn key<T>(&mut self, name: &str, form: &impl KeyForm<T>, default: Option<String>, needs_restart: bool) {
        let mut said = form.allowed();
        said.extend(default.filter(|text| !text.is_empty()).map(|text| format!("; default: {text}")));
        if needs_restart {
            said += "; needs a restart";
        }
        let mut schema = form.schema();
        schema["description"] = said.into();
        self.insert(name, schema);
    }

    /// A secret, and another form that it may have.
    fn secret_of(&mut self, name: &str, also: &str, form: Option<Value>) {
        let elsewhere = |key: &str| {
            let properties = json!({ key: { "type": "string" } });
            json!({ "type": "object", "properties": properties, "required": [key], "additionalProperties": false })
        };
        let description = format!("a secret, or where it stands: {{ env = \"NAME\" }}, {{ file = \"path\" }}{also}");
        let forms: Vec<Value> =
            [json!({ "type": "string" }), elsewhere("env"), elsewhere("file")].into_iter().chain(form).collect();
        self.insert(name, json!({ "description": description, "anyOf": forms }));
    }
}

impl KeyVisitor for SchemaObject {
    fn value<T>(&mut self, name: &'static str, value: &mut T, form: impl KeyForm<T>, nature: Nature) {
        let is_required = nature == Nature::Required;
        if is_required {
            self.required.push(name);
        }
        self.key(name, &form, (!is_required).then(|| form.text(value)), nature == Nature::Restart);
    }

    fn maybe<T>(&mut self, name: &'static str, value: &mut Option<T>, form: impl KeyForm<T>) {
        let default = value.as_ref().map(|value| form.text(value));
        self.key(name, &form, default, false);
    }

    fn secret(&mut self, name: &'static str, _: &mut Option<Secret>) {
        self.secret_of(name, "", None);
    }

    fn password(&mut self, name: &'static str, _: &mut Option<PasswordSource>) {
        let command = object_of(&mut CommandKeys::default());
        self.secret_of(name, ", or a command that prints it: { command = [\"program\"] }", Some(command));
    }

    fn file(&mut self, name: &'static str, _: &mut Option<PathBuf>) {
        self.insert(name, json!({ "type": "string", "description": "a file" }));
    }

    fn table(&mut self, name: &'static str, table: &mut impl KeyTable) {
        self.insert(name, object_of(table));
    }

    fn maybe_table<T: KeyTable + Default>(&mut self, name: &'static str, table: &mut Option<T>) {
        self.insert(name, object_of(table.get_or_insert_default()));
    }

    fn group(&mut self, _is_in_force: bool, keys: impl FnOnce(&mut Self)) {
        keys(self);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    /// Whether a value is as the schema says; knows the words that are used here.
    fn fits(value: &Value, schema: &Value) -> bool {
        let is_of_type = match schema["type"].as_str() {
            Some("object") => value.as_object().is_some_and(|table| fits_table(table, schema)),
            Some("array") => value.as_array().is_some_and(|list| list.iter().all(|item| fits(item, &schema["items"]))),
            Some("string") => value.as_str().is_some_and(|text| fits_pattern(text, &schema["pattern"])),
            Some("integer") => value.as_u64().is_some_and(|number| {
                schema["minimum"].as_u64().is_some_and(|least| number >= least)
                    && schema["maximum"].as_u64().is_some_and(|most| number <= most)
            }),
            Some("boolean") => value.is_boolean(),
            Some(other) => panic!("the test does not know {other}"),
            None => true,
        };
        let any = schema["anyOf"].as_array().is_none_or(|forms| forms.iter().any(|form| fits(value, form)));
        let words = schema["enum"].as_array().is_none_or(|words| words.contains(value));
        is_of_type && any && words && (schema["const"].is_null() || schema["const"] == *value)
    }

    fn fits_table(table: &Map<String, Value>, schema: &Value) -> bool {
        let of_key = |key: &str| schema["properties"].get(key).unwrap_or_else(|| &schema["additionalProperties"]);
        let keys = table.iter().all(|(key, value)| match of_key(key) {
            Value::Bool(is_allowed) => *is_allowed,
            schema => fits(value, schema),
        });
        let required = schema["required"].as_array();
        keys && required
            .is_none_or(|required| required.iter().all(|key| table.contains_key(key.as_str().expect("text"))))
    }

    /// Patterns are digits and one of several units.
    fn fits_pattern(text: &str, pattern: &Value) -> bool {
        let Some(pattern) = pattern.as_str() else { return true };
        let (between, units) = pattern.strip_prefix("^[0-9]+").expect("digits").split_once('(').expect("units");
        let units = units.strip_suffix(")$").expect("an end");
        let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.len() < text.len() && units.split('|').any(|unit| rest.strip_prefix(between) == Some(unit))
    }

    fn file(path: &Path) -> Value {
        toml::from_str(&fs::read_to_string(path).expect("it is there")).expect("TOML")
    }

    fn root() -> PathBuf {
        env!("CARGO_MANIFEST_DIR").into()
    }

    #[test]
    fn valid_files_fit() {
        let schema = schema();
        let listed = fs::read_dir(root().join("tests/config/valid")).expect("it is there");
        let files = listed.map(|entry| entry.expect("readable").path());
        let mut count = 0;
        for path in
            files.filter(|path| path.extension().is_some_and(|end| end == "toml")).chain([root().join("proxy.toml")])
        {
            count += 1;
            let file = file(&path);
            for (section, value) in file.as_object().expect("a table") {
                assert!(fits(value, &schema["properties"][section]), "{}: {section}: {value:#}", path.display());
            }
            assert!(fits(&file, &schema), "{}", path.display());
        }
        assert!(count > 3, "{count}");
    }

    #[test]
    fn keys_and_values_that_are_none_do_not_fit() {
        let schema = schema();
        for path in ["unknown-keys.toml", "wrong-types.toml"] {
            assert!(!fits(&file(&root().join("tests/config/invalid").join(path)), &schema), "{path}");
        }
        for (key, value) in [("size", json!(0)), ("wait_timeout", json!("5 parsecs")), ("mode", json!("loud"))] {
            assert!(!fits(&json!({ "pool": { key: value } }), &schema), "{key}");
        }
    }

    #[test]
    fn former_names_are_deprecated() {
        let keys = &schema()["properties"]["databases"]["additionalProperties"]["properties"];
        assert_eq!(keys["standing"]["deprecated"], true);
        assert_eq!(keys["server_role"]["description"], "one of \"primary\", \"standby\", \"any\"; default: any");
    }
}
