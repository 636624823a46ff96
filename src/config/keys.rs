//! A section is a struct whose fields are its keys: name, default, bounds and documentation stand in one line.
//!
//! `section!` makes of these lines the struct, its `Default` and its [`KeyTable`](super::raw::KeyTable). Everything
//! that is done with keys visits the table: [`SectionReader`](super::raw::SectionReader) reads the file into it, `show`
//! makes rows of it for SHOW CONFIG, for what a reload changed, and for `docs/CONFIG.md`.

/// Defines a struct of keys. A line is `field: Type = default => how(form);`, where `how` is a method of
/// [`KeyVisitor`](super::raw::KeyVisitor); `as` names a key that is not called as its field. A function after the lines
/// checks the rules between keys.
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

        impl $crate::config::raw::KeyTable for $name {
            fn keys(&mut self, keys: &mut impl $crate::config::raw::KeyVisitor) {
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
