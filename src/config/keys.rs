//! A section is a struct whose fields are its keys: name, default, bounds and documentation stand in one line.
//!
//! `section!` makes of these lines the struct, its `Default` and its [`KeyTable`]. Everything that is done with keys
//! visits the table: [`SectionReader`] reads the file into it, `show` makes rows of it for SHOW CONFIG, for what a
//! reload changed, and for `docs/CONFIG.md`.

use std::path::PathBuf;

use super::Secret;
use super::form::KeyForm;
use super::raw::SectionReader;

/// Traits of a key besides its [`KeyForm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// It has a default, and a reload changes it.
    Usual,
    /// It has a default, and a change needs a restart.
    Restart,
    /// It has no default: where its table is written, it must be, too.
    Required,
}

/// A visitor of keys.
pub(super) trait KeyVisitor: Sized {
    /// A key whose value is always there.
    fn value<T>(&mut self, name: &'static str, value: &mut T, form: impl KeyForm<T>, nature: Nature);

    /// A key that may be unset.
    fn maybe<T>(&mut self, name: &'static str, value: &mut Option<T>, form: impl KeyForm<T>);

    /// `"text"`, `{ env = "NAME" }` or `{ file = "path" }`.
    fn secret(&mut self, name: &'static str, value: &mut Option<Secret>);

    /// The path of a file that must be readable.
    fn file(&mut self, name: &'static str, value: &mut Option<PathBuf>);

    /// A table within this one.
    fn table(&mut self, name: &'static str, table: &mut impl KeyTable);

    /// As [`table`](Self::table), for one that may be absent.
    fn maybe_table<T: KeyTable + Default>(&mut self, name: &'static str, table: &mut Option<T>);

    /// The keys of another struct, in this table.
    fn inline(&mut self, _field: &'static str, table: &mut impl KeyTable) {
        table.keys(self);
    }

    /// KeyVisitor that hold only where `is_in_force`.
    fn group(&mut self, is_in_force: bool, keys: impl FnOnce(&mut Self));

    /// A key that has a default, and that a reload changes.
    fn key<T>(&mut self, name: &'static str, value: &mut T, form: impl KeyForm<T>) {
        self.value(name, value, form, Nature::Usual);
    }

    /// A key that is read at start only.
    fn at_start<T>(&mut self, name: &'static str, value: &mut T, form: impl KeyForm<T>) {
        self.value(name, value, form, Nature::Restart);
    }

    /// A key without a default.
    fn required<T>(&mut self, name: &'static str, value: &mut T, form: impl KeyForm<T>) {
        self.value(name, value, form, Nature::Required);
    }

    /// As [`inline`](Self::inline), for keys that other tables begin with and that show there.
    fn template(&mut self, field: &'static str, table: &mut impl KeyTable) {
        self.group(false, |keys| keys.inline(field, table));
    }

    /// A value of several keys, in this table.
    fn shaped(&mut self, field: &'static str, value: &mut impl Shape) {
        let mut parts = value.parts();
        self.inline(field, &mut parts);
        value.set(parts);
    }

    /// A value of several keys, in a table of its own.
    fn shaped_table(&mut self, name: &'static str, value: &mut impl Shape) {
        let mut parts = value.parts();
        self.table(name, &mut parts);
        value.set(parts);
    }
}

/// KeyVisitor of one table of the file, and the rules between them.
pub(super) trait KeyTable {
    /// Visits every key.
    fn keys(&mut self, keys: &mut impl KeyVisitor);

    /// Blames keys that contradict each other, or lack another.
    fn rules(&self, _section: &SectionReader<'_>) {}
}

/// A value that the file spreads over several keys.
pub(super) trait Shape: Sized {
    /// The keys one by one.
    type Parts: KeyTable;

    /// The keys of this value.
    fn parts(&self) -> Self::Parts;

    /// The value of these keys; `None` where [`KeyTable::rules`] had something to blame.
    fn whole(parts: Self::Parts) -> Option<Self>;

    /// Takes the value of these keys, if it is one.
    fn set(&mut self, parts: Self::Parts) {
        if let Some(whole) = Self::whole(parts) {
            *self = whole;
        }
    }
}

/// Defines a struct of keys. A line is `field: Type = default => how(form);`, where `how` is a method of
/// [`KeyVisitor`]; `as` names a key that is not called as its field. A function after the lines checks the rules
/// between keys.
macro_rules! section {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $(
            $(#[$doc:meta])*
            $field_vis:vis $field:ident $(as $key:literal)? : $type:ty = $default:expr => $how:ident($($form:expr)?);
        )*
    } $($rules:path)?) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name {
            $($(#[$doc])* $field_vis $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::config::keys::KeyTable for $name {
            fn keys(&mut self, keys: &mut impl $crate::config::keys::KeyVisitor) {
                $(keys.$how($crate::config::keys::section!(@name $field $($key)?), &mut self.$field $(, $form)?);)*
            }

            $(fn rules(&self, section: &$crate::config::raw::SectionReader<'_>) {
                $rules(self, section);
            })?
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $key:literal) => { $key };
}

pub(super) use section;
