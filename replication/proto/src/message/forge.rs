//! What simulated Byzantine members need to sign well-formed lies.

use super::*;

/// Types that members sign whole.
#[allow(private_bounds)]
pub trait Signable: Statement {}
impl Signable for Checkpoint {}
impl Signable for ViewChange {}
impl Signable for NewView {}

/// What `sender` signs to say `body`.
pub fn signed_statement<T: Signable>(config: &Config, sender: MemberId, body: &T) -> Digest {
    statement(T::DOMAIN, config, sender, body)
}

/// What the primary signs as PRE-PREPARE.
pub fn pre_prepare_statement(config: &Config, sender: MemberId, vote: &Vote) -> Digest {
    statement(Domain::PrePrepare, config, sender, vote)
}

/// What `sender` signs as PREPARE.
pub fn prepare_statement(config: &Config, sender: MemberId, vote: &Vote) -> Digest {
    statement(Domain::Prepare, config, sender, vote)
}

/// What a client signs in a request.
pub fn request_statement(config: &Config, request: &Request) -> Digest {
    let Request { client, t, notified, kind, op, .. } = request;
    Request::statement(config.group, *client, *t, *notified, *kind, op)
}

/// The tag of what follows from a NEW-VIEW.
pub fn tag(config: &Config, new_view: &NewView) -> Digest {
    let NewView { view, active, stable, order, .. } = new_view;
    tag_of(config, *view, active, *stable, order.iter().map(|(digest, _)| *digest))
}

/// The digest of a result.
pub fn digest_of_result(result: &[u8]) -> Digest {
    result_digest(result)
}

/// The digest under which a body is voted on.
pub fn digest_of_body(config: &Config, rsn: Rsn, body: &Body) -> Digest {
    body_digest(config, rsn, body)
}
