//! The cluster manager's deterministic core: manager, bootstrap, PMI
