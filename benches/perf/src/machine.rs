//! What the machine is, for whoever reads the figures.

use serde::Serialize;

/// A description of this machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many of them.
    pub processors: usize,
    /// Kernel release.
    pub kernel: String,
    /// The distribution's name.
    pub system: String,
    /// Processes that ran or wanted to, on average over the minute before the measurement.
    pub load: f64,
}

impl Machine {
    /// This one, now. What the system does not tell is left empty.
    pub fn this() -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str, separator: char| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(separator))
                .map(|value| value.trim().trim_matches('"').to_owned())
                .unwrap_or_default()
        };
        Machine {
            processor: field(&read("/proc/cpuinfo"), "model name", ':'),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: field(&read("/etc/os-release"), "PRETTY_NAME", '='),
            load: read("/proc/loadavg").split(' ').next().and_then(|l| l.parse().ok()).unwrap_or(0.0),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Machine { processor, processors, kernel, system, load } = self;
        write!(f, "{processor}, {processors} processors, kernel {kernel}, {system}, load {load:.1}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_tells() {
        let machine = Machine::this();
        assert!(!machine.processor.is_empty() && !machine.kernel.is_empty(), "{machine:?}");
        assert!(machine.processors >= 1 && machine.system.contains(' '), "{machine:?}");
    }
}
