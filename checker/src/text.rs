//! The text form of records: words between single spaces, one table for writing and reading, so that they cannot differ.
//!
//! A value that is a [`Field`] knows how many words it takes. [`records!`] makes an enum of verbs and fields, and its text
//! form; [`words!`] makes an enum whose values are one word each.
//!
//! **Invariant.** Reading never panics, whatever the text; what is not exactly in the form is `None`.

use std::fmt::{self, Write as _};

/// The words of one line that have not been read yet.
pub(crate) type Words<'a> = std::str::Split<'a, char>;

/// A value in the text of a record.
pub(crate) trait Field: Sized {
    /// Writes its words.
    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Reads its words.
    fn read(words: &mut Words<'_>) -> Option<Self>;
}

/// Makes an enum of records: each a verb and its fields in order.
macro_rules! records {
    (
        $(#[$meta:meta])* pub enum $name:ident {
            $(
                $(#[$doc:meta])*
                $verb:literal $variant:ident $( { $( $(#[$field_doc:meta])* $field:ident : $type:ty ),* $(,)? } )?
            ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$doc])* $variant $( { $( $(#[$field_doc])* $field: $type ),* } )? ),*
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $( Self::$variant $( { $($field),* } )? => {
                        out.write_str($verb)?;
                        $( $( out.write_str(" ")?; $crate::text::Field::write($field, out)?; )* )?
                    } )*
                }
                Ok(())
            }
        }

        impl $crate::text::Field for $name {
            fn write(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(self, out)
            }

            fn read(words: &mut $crate::text::Words<'_>) -> Option<Self> {
                match words.next()? {
                    $( $verb => Some(Self::$variant $( { $( $field: $crate::text::Field::read(words)? ),* } )?), )*
                    _ => None,
                }
            }
        }
    };
}

/// Makes an enum whose values are one word each.
macro_rules! words {
    (
        $(#[$meta:meta])* pub enum $name:ident { $( $(#[$doc:meta])* $word:literal $variant:ident ),* $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $( $(#[$doc])* $variant ),* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$( Self::$variant ),*];

            /// Its word.
            pub fn word(self) -> &'static str {
                match self { $( Self::$variant => $word ),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str(self.word())
            }
        }

        impl $crate::text::Field for $name {
            fn write(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str(self.word())
            }

            fn read(words: &mut $crate::text::Words<'_>) -> Option<Self> {
                let word = words.next()?;
                Self::ALL.iter().copied().find(|known| known.word() == word)
            }
        }
    };
}

pub(crate) use {records, words};

/// Reads a whole text as one value.
pub(crate) fn read<T: Field>(text: &str) -> Option<T> {
    let mut words = text.split(' ');
    let value = T::read(&mut words)?;
    words.next().is_none().then_some(value)
}

macro_rules! numbers {
    ($($type:ty),*) => { $(
        impl Field for $type {
            fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "{self}")
            }

            fn read(words: &mut Words<'_>) -> Option<Self> {
                words.next()?.parse().ok()
            }
        }
    )* };
}

numbers!(u32, u64, i32, bool);

/// A name: anything without white space; never empty.
impl Field for String {
    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |character: char| if character.is_whitespace() { '_' } else { character };
        out.write_str(if self.is_empty() { "_" } else { "" })?;
        self.chars().map(shown).try_for_each(|character| out.write_char(character))
    }

    fn read(words: &mut Words<'_>) -> Option<Self> {
        words.next().filter(|word| !word.is_empty() && !word.contains(char::is_whitespace)).map(str::to_owned)
    }
}

/// What may be unknown: `-`.
impl<T: Field> Field for Option<T> {
    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Some(value) => value.write(out),
            None => out.write_str("-"),
        }
    }

    fn read(words: &mut Words<'_>) -> Option<Self> {
        let mut ahead = words.clone();
        if ahead.next()? == "-" {
            *words = ahead;
            return Some(None);
        }
        T::read(words).map(Some)
    }
}

/// A list: how many, then each.
impl<T: Field> Field for Vec<T> {
    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.len())?;
        self.iter().try_for_each(|value| {
            out.write_str(" ")?;
            value.write(out)
        })
    }

    fn read(words: &mut Words<'_>) -> Option<Self> {
        // Ends early when the words do: a wrong count costs nothing.
        (0..u32::read(words)?).map(|_| T::read(words)).collect()
    }
}

/// Sixteen bytes as 32 hexadecimal digits.
impl Field for [u8; 16] {
    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }

    fn read(words: &mut Words<'_>) -> Option<Self> {
        let word = words.next().filter(|word| word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        u128::from_str_radix(word, 16).ok().map(u128::to_be_bytes)
    }
}
