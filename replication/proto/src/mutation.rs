//! Rules broken on purpose, to test those who watch over them.

/// A rule switched off, so that tests can show that the judges notice. Never set in production.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A member that sent VIEW-CHANGE goes on in the view it left (the hole of the printed protocol).
    NoFreeze,
    /// COMMITs of 2f members are enough to execute.
    CommitQuorum2f,
    /// w equal answers are enough for a read.
    WeakReadQuorum,
    /// Reads are answered before what the NEW-VIEW carried over is executed.
    ReadBeforeOrder,
    /// Of two certificates for one position the one of the lowest view wins in a view change.
    LowestView,
    /// VIEW-CHANGEs of 2f members are enough to open a view.
    NewViewQuorum2f,
    /// Equal CHECKPOINTs of f+1 members make a checkpoint stable.
    CheckpointQuorumWeak,
    /// What is prepared is not written down, so that a restart forgets it.
    UnpersistedP,
    /// A member that becomes a spare forgets what it had prepared (as the printed protocol has it).
    SpareForgets,
    /// In mode M one member is enough to back up the claim that a batch was prepared.
    OneVoucher,
    /// w equal tentative answers are enough for a client.
    WeakTentativeQuorum,
    /// What was executed tentatively is not undone when the view changes.
    NoUndo,
    /// Members go on executing after the end of their epoch.
    EpochRunsOn,
}

impl Mutation {
    /// All of them, with the names that command lines use.
    pub const ALL: [(&'static str, Mutation); 13] = [
        ("no-freeze", Mutation::NoFreeze),
        ("commit-quorum-2f", Mutation::CommitQuorum2f),
        ("lowest-view", Mutation::LowestView),
        ("new-view-quorum-2f", Mutation::NewViewQuorum2f),
        ("checkpoint-quorum-weak", Mutation::CheckpointQuorumWeak),
        ("unpersisted-p", Mutation::UnpersistedP),
        ("spare-forgets", Mutation::SpareForgets),
        ("one-voucher", Mutation::OneVoucher),
        ("weak-read-quorum", Mutation::WeakReadQuorum),
        ("read-before-order", Mutation::ReadBeforeOrder),
        ("weak-tentative-quorum", Mutation::WeakTentativeQuorum),
        ("no-undo", Mutation::NoUndo),
        ("epoch-runs-on", Mutation::EpochRunsOn),
    ];
}
