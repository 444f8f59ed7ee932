//! `demo`.
use super::Outcome;
use super::args::DemoArgs;
use crate::layout::Layout;

pub(super) fn demo(_layout: Layout, _args: &DemoArgs) -> Outcome {
    Err("not yet".to_owned().into())
}
