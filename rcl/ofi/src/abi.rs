//! The binary interface of libfabric as a provider sees it: structures, tables of calls, constants.
//!
//! libfabric's calls are inline functions over tables of function pointers, so these layouts are the interface. They
//! are those of its headers from version 1.9 to 2.5; later versions only append. What the application or libfabric's
//! core allocates is used behind pointers, up to the last field that all versions have; what is allocated here for
//! others to free or to copy by a size of their own has room behind it ([`crate::offer`]). `abi/test.rs` compares all of
//! it with the headers by means of a C compiler.

mod attributes;
mod constants;
mod tables;

pub(crate) use attributes::*;
pub(crate) use constants::*;
pub(crate) use tables::*;

#[cfg(test)]
mod test;
