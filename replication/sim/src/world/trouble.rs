//! Faults that come and go.

use super::{EPOCH, Happening, World, network};
use crate::plan::{Fault, Sabotage, Strategy, Trouble};
use replication_proto::Replacement;
use std::time::Duration;

impl World {
    pub(super) fn schedule_fault(&mut self, number: usize, fault: Fault) {
        match fault {
            Fault::Byzantine { member, strategy: Strategy::Forgetful } => {
                self.schedule(EPOCH + Duration::from_millis(300), Happening::Forgets(member));
            }
            Fault::Byzantine { .. } => {}
            Fault::Member { span, .. } | Fault::Partition { span, .. } | Fault::PowerCut { span } => {
                self.schedule(EPOCH + span.from, Happening::FaultBegins(number));
                self.schedule(EPOCH + span.to, Happening::FaultEnds(number));
            }
            Fault::Rogue => self.schedule(EPOCH, Happening::RogueAsks),
            Fault::ClientRestart { at, .. } | Fault::Replace { at, .. } => {
                self.schedule(EPOCH + at, Happening::FaultBegins(number))
            }
        }
    }

    pub(super) fn fault_begins(&mut self, number: usize) {
        let Some(fault) = self.plan.faults[number] else { return };
        self.trace(|_| format!("fault {number} begins: {fault}"));
        match fault {
            Fault::Member { member, span, trouble } => {
                self.judge.fault(trouble.name());
                self.troubles[member] = Some((trouble, EPOCH + span.to));
                match trouble {
                    Trouble::Crash => self.crash(member),
                    Trouble::LosesDisk | Trouble::RotsDisk => self.hosts[member].fall(),
                    _ => {}
                }
            }
            Fault::Partition { side, one_way, flapping, .. } => {
                self.judge.fault(if one_way { "one-way partitions" } else { "partitions" });
                let partition = network::Partition { side, since: self.now, one_way, flapping };
                self.partitions.insert(number, partition);
            }
            Fault::PowerCut { .. } => {
                self.judge.fault("power cuts");
                (0..self.hosts.len()).for_each(|member| self.crash(member));
            }
            Fault::ClientRestart { client, .. } => self.restart_client(client),
            Fault::Replace { member, .. } => {
                self.judge.fault("replacements asked for");
                let newcomer = self.config.n() + self.replacements.len();
                let (out, new) = (self.hosts[member].peer, self.hosts[newcomer].peer);
                self.replacements.push(Replacement { out, new });
                self.ask_to_replace();
            }
            Fault::Byzantine { .. } | Fault::Rogue => {}
        }
    }

    /// Some fall in the middle of what they are doing.
    fn crash(&mut self, member: usize) {
        if !self.hosts[member].is_member() {
            return; // a newcomer that has not come yet
        }
        if self.rng.chance(1, 2) {
            self.hosts[member].falls_after = Some(self.rng.within(1, 30));
        } else {
            self.hosts[member].fall();
        }
    }

    pub(super) fn fault_ends(&mut self, number: usize) {
        let Some(fault) = self.plan.faults[number] else { return };
        self.trace(|_| format!("fault {number} ends: {fault}"));
        match fault {
            Fault::Member { member, trouble, .. } => {
                self.troubles[member] = None;
                match trouble {
                    Trouble::Crash => self.restart(member),
                    Trouble::LosesDisk => self.troubles[member] = Some((Trouble::LosesDisk, EPOCH)),
                    Trouble::RotsDisk => {
                        self.hosts[member].rot();
                        let now = self.now;
                        if let Err(e) = self.hosts[member].restart(now) {
                            self.trace(|_| format!("stays down: {e}"));
                            self.judge.fault("damage noticed");
                            self.troubles[member] = Some((trouble, EPOCH));
                        }
                        self.after_member(member);
                    }
                    _ => {}
                }
            }
            Fault::Partition { .. } => drop(self.partitions.remove(&number)),
            Fault::PowerCut { .. } => {
                for member in 0..self.hosts.len() {
                    // Whoever is down for another reason comes back with its end, or not at all.
                    let down = matches!(
                        self.troubles[member],
                        Some((Trouble::Crash | Trouble::LosesDisk | Trouble::RotsDisk, _))
                    );
                    if !down {
                        self.restart(member);
                    }
                }
            }
            Fault::Byzantine { .. } | Fault::Rogue | Fault::ClientRestart { .. } | Fault::Replace { .. } => {}
        }
    }

    fn restart(&mut self, member: usize) {
        if !self.hosts[member].is_member() {
            return;
        }
        let now = self.now;
        let host = &mut self.hosts[member];
        if self.options.sabotage == Some(Sabotage::Amnesia) {
            host.fall();
            host.begin(now);
        } else if let Err(e) = host.restart(now) {
            self.judge.object(e);
        }
        let torn = std::mem::take(&mut self.hosts[member].torn);
        (0..torn).for_each(|_| self.judge.fault("writes torn"));
        self.after_member(member);
    }

    pub(super) fn forgets(&mut self, member: usize) {
        if self.hosts[member].is_up() {
            self.judge.fault("forgotten");
            let now = self.now;
            self.hosts[member].begin(now);
            self.after_member(member);
        }
        let pause = Duration::from_millis(self.rng.within(100, 3_000));
        self.schedule(self.now + pause, Happening::Forgets(member));
    }
}
