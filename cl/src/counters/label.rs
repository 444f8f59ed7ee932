/// What a counter's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A number of things that happened. It only grows, until the endpoint is closed or, of a peer, the connection
    /// ends.
    Count,
    /// How much of something there is at present.
    Level,
}

/// A counter's name and meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// A word in snake case.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// A sentence for people.
    pub meaning: &'static str,
}

impl Label {
    /// The label of a count.
    pub const fn count(name: &'static str, meaning: &'static str) -> Label {
        Label { name, kind: Kind::Count, meaning }
    }

    /// The label of a level.
    pub const fn level(name: &'static str, meaning: &'static str) -> Label {
        Label { name, kind: Kind::Level, meaning }
    }
}

/// Declares a structure of counts once: the public fields, their labels, and their values in the same order.
/// A field's documentation is its meaning for those who read the counters from outside.
macro_rules! counts {
    (
        $(#[$about:meta])*
        pub struct $name:ident {
            $($(#[doc = $meaning:literal])+ $field:ident,)+
            $(; $(#[$part_about:meta])* $part:ident: $Part:ty)?
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $meaning])+ pub $field: u64,)+
            $($(#[$part_about])* pub $part: $Part,)?
        }

        impl $name {
            /// Names and meanings of these counters, in the order of their declaration.
            pub const LABELS: &'static [$crate::counters::label::Label] = &[
                $($crate::counters::label::Label::count(stringify!($field), concat!($($meaning),+)),)+
            ];

            /// Their values, in the same order.
            pub fn values(&self) -> [u64; Self::LABELS.len()] {
                [$(self.$field),+]
            }
        }
    };
}
pub(crate) use counts;
