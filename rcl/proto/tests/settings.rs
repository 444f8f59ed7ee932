//! Settings that cannot be are refused.

use rcl_proto::Config;
use std::time::Duration;

/// What is changed, and how.
type Change = (&'static str, fn(&mut Config));

#[test]
fn what_cannot_be_is_refused_by_name() {
    assert_eq!(Config::new(1000).check(), Ok(()));
    assert_eq!(Config::new(0).check(), Ok(()), "it is set by who knows it");
    let changes: [Change; 10] = [
        ("window", |c| c.window = 1),
        ("window", |c| c.window = 4097),
        ("window_of_all", |c| c.window_of_all = 0),
        ("send_buffer", |c| c.send_buffer = 0),
        ("message_len_max", |c| c.message_len_max = 0),
        ("connections_max", |c| c.connections_max = 0),
        ("connections_per_address", |c| c.connections_per_address = 0),
        ("dead_after", |c| c.dead_after = Duration::ZERO),
        ("rto_min", |c| c.rto_min = Duration::ZERO),
        ("rto_min", |c| c.rto_min = c.rto_max + Duration::from_nanos(1)),
    ];
    for (field, change) in changes {
        let mut config = Config::new(1000);
        change(&mut config);
        let error = config.check().unwrap_err();
        assert_eq!(error.field, field, "{error}");
        assert!(error.to_string().starts_with(&format!("rcl::Config::{field}: ")));
    }
}
