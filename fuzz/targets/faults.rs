//! Lists of faults to be injected, from the environment or a configuration.
#![no_main]

use cl_base::faults::Faults;

libfuzzer_sys::fuzz_target!(|input: &str| {
    if let Ok(faults) = input.parse::<Faults>() {
        let text = faults.to_string();
        assert_eq!(text.parse::<Faults>().as_ref(), Ok(&faults), "{text}");
    }
});
