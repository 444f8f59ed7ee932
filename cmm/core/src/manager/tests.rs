use super::*;

const SECOND: u64 = 1_000_000_000;

/// A manager with its clock and everything it has sent.
struct Bench {
    manager: Manager,
    now: Time,
    sent: Notices,
}

impl Bench {
    /// `nodes` nodes with two cores each, all joined.
    fn up(nodes: u32) -> Bench {
        let config = ManagerConfig {
            nodes: (1..=nodes).map(NodeId).collect(),
            f: 1,
            ping_timeout_ns: SECOND,
            reset_retry_ns: 10 * SECOND,
            heartbeat_tree: true,
        };
        let mut b = Bench { manager: Manager::new(config), now: Time::from_nanos(SECOND), sent: Vec::new() };
        for n in 1..=nodes {
            assert_eq!(b.agent(n, Op::Join { incarnation: Incarnation(1), cores: 2 }), Ok(Reply::Admitted));
        }
        b
    }

    fn apply(&mut self, role: Role, op: Op) -> Answer {
        self.now += Duration::from_millis(1);
        let mut out = Notices::new();
        let answer = self.manager.apply(self.now, role.peer(), op, &mut out);
        self.sent.extend(out);
        self.check();
        answer
    }

    fn agent(&mut self, node: u32, op: Op) -> Answer {
        self.apply(Role::Agent(NodeId(node)), op)
    }

    fn user(&mut self, op: Op) -> Answer {
        self.apply(Role::User(1), op)
    }

    fn submit(&mut self, spec: JobSpec) -> JobId {
        match self.user(Op::Submit(spec)) {
            Ok(Reply::Submitted(id)) => id,
            other => panic!("submit: {other:?}"),
        }
    }

    fn wait(&mut self, d: Duration) {
        let end = self.now + d;
        while let Some(deadline) = self.manager.next_deadline().filter(|d| *d <= end) {
            self.now = deadline;
            let mut out = Notices::new();
            self.manager.advance(self.now, &mut out);
            self.sent.extend(out);
            assert!(
                self.manager.next_deadline().is_none_or(|d| d > self.now),
                "a deadline was not dealt with"
            );
        }
        self.now = end;
        self.check();
    }

    fn job(&self, id: JobId) -> JobView {
        self.manager.jobs[&id].view(id)
    }

    fn node(&self, n: u32) -> NodeView {
        self.manager.nodes[&NodeId(n)].view(NodeId(n))
    }

    /// What has been sent to `role` since the last call, for whichever role.
    fn told(&mut self, role: Role) -> Vec<Notice> {
        let (mine, rest) = std::mem::take(&mut self.sent).into_iter().partition(|(to, _)| *to == role.peer());
        self.sent = rest;
        Notices::into_iter(mine).map(|(_, n)| n).collect()
    }

    /// Starts all shares of a job that has been placed.
    fn run(&mut self, id: JobId) {
        for node in self.job(id).nodes {
            self.agent(node.0, Op::PartStarted(Attempt { job: id, number: self.job(id).requeues })).unwrap();
        }
        assert_eq!(self.job(id).state, JobState::Running);
    }

    fn end_part(&mut self, node: u32, job: JobId, number: u32) {
        self.agent(node, Op::PartEnded { attempt: Attempt { job, number } }).unwrap();
    }

    fn kill_node(&mut self, n: u32) {
        for m in 1..=2 {
            let suspect = Op::Suspect { node: NodeId(n), incarnation: Incarnation(1) };
            self.apply(Role::Manager(NodeId(m)), suspect).unwrap();
        }
        self.wait(Duration::from_secs(2));
        assert_eq!(self.node(n).state, NodeState::Dead);
    }

    /// What must hold after every operation.
    fn check(&self) {
        let m = &self.manager;
        for (id, node) in &m.nodes {
            assert!(node.used.values().sum::<u32>() <= node.cores, "{id} is overbooked");
        }
        let waiting = m.jobs.values().filter(|j| j.state == JobState::Queued).count();
        assert_eq!(waiting, m.queue.len(), "every waiting job is in the queue once");
        for (id, job) in &m.jobs {
            assert_eq!(job.exit_code.is_some(), job.state.is_final(), "job {id}");
            for share in &job.shares {
                let holds = m.nodes[&share.part.node].used.contains_key(id);
                assert_eq!(holds, share.progress != Progress::Ended, "job {id} on {}", share.part.node);
            }
        }
        let bytes = cl_base::codec::encode(m);
        assert_eq!(&cl_base::codec::decode::<Manager>(&bytes).unwrap(), m, "the state survives a snapshot");
    }
}

fn spec(ranks: u32) -> JobSpec {
    JobSpec {
        name: "pi".into(),
        argv: vec!["/bin/pi".into()],
        env: vec![],
        cwd: "/".into(),
        ranks,
        ranks_per_node: None,
        requeue: false,
        output: Output::Stream { to: Role::User(1).peer(), address: "127.0.0.1:1".into() },
    }
}

#[test]
fn a_job_runs_to_its_good_end_and_its_user_hears_of_each_step() {
    let mut b = Bench::up(3);
    let id = b.submit(spec(3));
    assert_eq!(b.job(id).nodes, [NodeId(1), NodeId(2)]);
    assert!(matches!(b.told(Role::Agent(NodeId(1)))[..], [Notice::Launch { .. }]));
    assert!(matches!(b.told(Role::Agent(NodeId(2)))[..], [Notice::Launch { .. }]));
    b.run(id);
    b.end_part(2, id, 0);
    assert_eq!(b.job(id).state, JobState::Running);
    b.end_part(1, id, 0);
    let job = b.job(id);
    assert_eq!((job.state, job.exit_code), (JobState::Done, Some(0)));
    let states: Vec<JobState> = b
        .told(Role::User(1))
        .into_iter()
        .map(|n| match n {
            Notice::JobChanged(v) => v.state,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(states, [JobState::Starting, JobState::Running, JobState::Done]);
    assert_eq!(b.node(1).used, 0);
}

#[test]
fn the_queue_is_first_come_first_served_even_past_a_large_job() {
    let mut b = Bench::up(2);
    let first = b.submit(spec(3));
    let large = b.submit(spec(4));
    let small = b.submit(spec(1));
    assert_eq!((b.job(large).state, b.job(small).state), (JobState::Queued, JobState::Queued));
    b.run(first);
    b.end_part(1, first, 0);
    b.end_part(2, first, 0);
    assert_eq!((b.job(large).state, b.job(small).state), (JobState::Starting, JobState::Queued));
}

#[test]
fn cancelling_the_head_of_the_queue_lets_the_next_one_start() {
    let mut b = Bench::up(2);
    b.submit(spec(2));
    let large = b.submit(spec(4));
    let small = b.submit(spec(1));
    b.user(Op::Cancel(large)).unwrap();
    assert_eq!((b.job(large).state, b.job(large).exit_code), (JobState::Cancelled, Some(130)));
    assert_eq!(b.job(small).state, JobState::Starting);
}

#[test]
fn a_failing_rank_ends_the_whole_job_with_its_exit_code() {
    let mut b = Bench::up(2);
    let id = b.submit(spec(4));
    b.run(id);
    b.told(Role::Agent(NodeId(1)));
    let attempt = Attempt { job: id, number: 0 };
    b.agent(2, Op::PartFailed { attempt, rank: Some(3), code: 7, reason: "exit code 7".into() }).unwrap();
    assert!(matches!(b.told(Role::Agent(NodeId(1)))[..], [Notice::Kill { .. }]));
    assert_eq!(b.job(id).state, JobState::Ending);
    b.end_part(1, id, 0);
    b.end_part(2, id, 0);
    let job = b.job(id);
    assert_eq!((job.state, job.exit_code), (JobState::Failed, Some(7)));
    assert!(job.reason.unwrap().contains("rank 3 on node2"));
}

#[test]
fn one_manager_alone_cannot_have_a_node_declared_dead() {
    let mut b = Bench::up(3);
    for _ in 0..5 {
        let suspect = Op::Suspect { node: NodeId(3), incarnation: Incarnation(1) };
        b.apply(Role::Manager(NodeId(1)), suspect).unwrap();
    }
    b.wait(Duration::from_secs(60));
    assert_eq!(b.node(3).state, NodeState::Up);
}

#[test]
fn a_suspected_node_that_answers_its_ping_stays() {
    let mut b = Bench::up(3);
    for m in 1..=2 {
        let suspect = Op::Suspect { node: NodeId(3), incarnation: Incarnation(1) };
        b.apply(Role::Manager(NodeId(m)), suspect).unwrap();
    }
    assert_eq!(b.node(3).state, NodeState::Suspected);
    let [Notice::Ping { nonce }] = b.told(Role::Agent(NodeId(3)))[..] else { panic!("no ping") };
    b.agent(3, Op::Pong { nonce: nonce + 1 }).unwrap();
    assert_eq!(b.node(3).state, NodeState::Suspected, "another ping's answer does not count");
    b.agent(3, Op::Pong { nonce }).unwrap();
    b.wait(Duration::from_secs(60));
    assert_eq!(b.node(3).state, NodeState::Up);
}

#[test]
fn a_dead_node_fails_its_jobs_only_after_the_hardcore_confirmed_the_reset() {
    let mut b = Bench::up(3);
    let hit = b.submit(spec(4));
    let other = b.submit(spec(1));
    b.run(hit);
    b.run(other);
    b.kill_node(2);
    assert!(b.told(Role::Hardcore).contains(&Notice::Reset { node: NodeId(2), incarnation: Incarnation(1) }));
    b.end_part(1, hit, 0);
    assert_eq!(b.job(hit).state, JobState::Ending, "node 2 may still run its ranks");
    b.apply(Role::Hardcore, Op::ResetDone { node: NodeId(2), incarnation: Incarnation(1) }).unwrap();
    let job = b.job(hit);
    assert_eq!((job.state, job.exit_code), (JobState::Failed, Some(1)));
    assert!(job.reason.unwrap().contains("node2 died with ranks 2-3"));
    assert_eq!(b.job(other).state, JobState::Running);
    b.agent(2, Op::Join { incarnation: Incarnation(2), cores: 2 }).unwrap();
    assert_eq!((b.node(2).state, b.node(2).resets), (NodeState::Up, 1));
}

#[test]
fn an_unconfirmed_reset_is_asked_for_again() {
    let mut b = Bench::up(3);
    b.kill_node(2);
    b.told(Role::Hardcore);
    b.wait(Duration::from_secs(25));
    assert_eq!(b.told(Role::Hardcore).len(), 2);
}

#[test]
fn a_requeued_job_never_runs_twice_at_once() {
    let mut b = Bench::up(3);
    let id = b.submit(JobSpec { requeue: true, ..spec(4) });
    b.run(id);
    b.kill_node(2);
    b.end_part(1, id, 0);
    assert_eq!(b.job(id).state, JobState::Ending);
    b.apply(Role::Hardcore, Op::ResetDone { node: NodeId(2), incarnation: Incarnation(1) }).unwrap();
    let job = b.job(id);
    assert_eq!((job.state, job.requeues), (JobState::Starting, 1));
    assert_eq!(job.nodes, [NodeId(1), NodeId(3)]);
    b.end_part(1, id, 0);
    assert_eq!(b.job(id).state, JobState::Starting, "word of the first attempt does not end the second");
    b.run(id);
    b.end_part(1, id, 1);
    b.end_part(3, id, 1);
    assert_eq!(b.job(id).state, JobState::Done);
}

#[test]
fn an_agent_that_restarts_unnoticed_loses_its_ranks_but_not_its_cores() {
    let mut b = Bench::up(2);
    let id = b.submit(spec(2));
    b.run(id);
    b.agent(1, Op::Join { incarnation: Incarnation(2), cores: 2 }).unwrap();
    assert_eq!(b.job(id).state, JobState::Failed);
    assert_eq!(b.node(1).used, 0);
}

#[test]
fn cancel_overrules_a_requeue_that_is_under_way() {
    let mut b = Bench::up(3);
    let id = b.submit(JobSpec { requeue: true, ..spec(4) });
    b.run(id);
    b.kill_node(2);
    b.user(Op::Cancel(id)).unwrap();
    b.end_part(1, id, 0);
    b.apply(Role::Hardcore, Op::ResetDone { node: NodeId(2), incarnation: Incarnation(1) }).unwrap();
    assert_eq!(b.job(id).state, JobState::Cancelled);
}

#[test]
fn impossible_jobs_are_refused_with_the_next_step() {
    let mut b = Bench::up(2);
    for (bad, word) in [
        (spec(5), "4 cores"),
        (spec(0), "at least 1"),
        (JobSpec { ranks_per_node: Some(1), ..spec(3) }, "at 1 to a node"),
        (JobSpec { argv: vec![], ..spec(1) }, "no program"),
        (JobSpec { name: "a\nb".into(), ..spec(1) }, "printable"),
        (JobSpec { name: "x".repeat(65), ..spec(1) }, "printable"),
        (JobSpec { cwd: "here".into(), ..spec(1) }, "absolute"),
    ] {
        let Err(Refusal::BadJob(text)) = b.user(Op::Submit(bad)) else { panic!("accepted") };
        assert!(text.contains(word), "{text}");
    }
    assert_eq!(b.user(Op::Query(Query::Job(JobId(9)))), Err(Refusal::UnknownJob(JobId(9))));
}

#[test]
fn nobody_may_say_what_is_not_his_to_say() {
    let mut b = Bench::up(2);
    let id = b.submit(spec(1));
    let attempt = Attempt { job: id, number: 0 };
    let cases = [
        (Role::User(1), Op::Pong { nonce: 1 }),
        (Role::User(1), Op::Suspect { node: NodeId(1), incarnation: Incarnation(1) }),
        (Role::Agent(NodeId(1)), Op::Submit(spec(1))),
        (Role::Agent(NodeId(1)), Op::ResetDone { node: NodeId(2), incarnation: Incarnation(1) }),
        (Role::Agent(NodeId(9)), Op::Join { incarnation: Incarnation(1), cores: 2 }),
        (Role::Manager(NodeId(1)), Op::PartStarted(attempt)),
        (Role::Hardcore, Op::Cancel(id)),
        (Role::User(2), Op::Cancel(id)),
    ];
    for (role, op) in cases {
        assert!(matches!(b.apply(role, op.clone()), Err(Refusal::NotAllowed(_))), "{role}: {op:?}");
    }
    // An agent that has no share of the job changes nothing.
    b.agent(2, Op::PartFailed { attempt, rank: None, code: 1, reason: "lie".into() }).unwrap();
    assert_eq!(b.job(id).state, JobState::Starting);
}

#[test]
fn a_view_is_logged_once_when_two_managers_work_in_it() {
    let mut b = Bench::up(4);
    let op = Op::ViewInstalled { view: 1, primary: NodeId(2) };
    b.apply(Role::Manager(NodeId(1)), op.clone()).unwrap();
    assert!(!b.manager.events.iter().any(|e| e.kind == "view"));
    b.apply(Role::Manager(NodeId(3)), op.clone()).unwrap();
    b.apply(Role::Manager(NodeId(2)), op).unwrap();
    assert_eq!(b.manager.events.iter().filter(|e| e.kind == "view").count(), 1);
}

/// Random operations of everybody against the invariants of [`Bench::check`].
#[test]
fn random_lives_keep_the_books_straight() {
    for seed in 0..100 {
        let mut rng = cl_base::Rng::new(seed);
        let mut b = Bench::up(4);
        let mut incarnation = 1;
        for _ in 0..120 {
            let node = NodeId(rng.within(1, 4) as u32);
            let attempt = Attempt { job: JobId(rng.within(1, 12)), number: rng.below(2) as u32 };
            let current = b.manager.nodes[&node].incarnation;
            let (role, op) = match rng.below(10) {
                0 | 1 => {
                    let job = JobSpec { requeue: rng.chance(1, 2), ..spec(rng.within(1, 8) as u32) };
                    (Role::User(1), Op::Submit(job))
                }
                2 => (Role::User(1), Op::Cancel(attempt.job)),
                3 | 4 => (Role::Agent(node), Op::PartStarted(attempt)),
                5 | 6 => (Role::Agent(node), Op::PartEnded { attempt }),
                7 => (Role::Agent(node), Op::PartFailed { attempt, rank: None, code: 0, reason: "x".into() }),
                8 => {
                    let manager = NodeId(rng.within(1, 4) as u32);
                    (Role::Manager(manager), Op::Suspect { node, incarnation: current })
                }
                _ if rng.chance(1, 2) => (Role::Hardcore, Op::ResetDone { node, incarnation: current }),
                _ => {
                    incarnation += 1;
                    (Role::Agent(node), Op::Join { incarnation: Incarnation(incarnation), cores: 2 })
                }
            };
            let _ = b.apply(role, op);
            b.wait(Duration::from_millis(rng.below(700)));
        }
    }
}

#[test]
fn a_bundler_that_two_managers_name_is_avoided_until_its_next_life() {
    // Two groups of four; the last three of each bundle.
    let mut b = Bench::up(8);
    let name = |b: &mut Bench, by: u32, node: u32, life: u64| {
        let op = Op::Suppresses { node: NodeId(node), incarnation: Incarnation(life) };
        b.apply(Role::Manager(NodeId(by)), op).unwrap();
    };
    let told = |b: &mut Bench| -> Vec<(PeerId, Vec<NodeId>)> {
        let sent = std::mem::take(&mut b.sent).into_iter();
        sent.filter_map(
            |(to, n)| if let Notice::Avoid { bundlers } = n { Some((to, bundlers)) } else { None },
        )
        .collect()
    };
    let group = |bundlers: &[u32], members: &[u32]| -> Vec<(PeerId, Vec<NodeId>)> {
        let bundlers: Vec<NodeId> = bundlers.iter().copied().map(NodeId).collect();
        members.iter().map(|m| (Role::Agent(NodeId(*m)).peer(), bundlers.clone())).collect()
    };
    assert_eq!(told(&mut b), [], "nobody is avoided at first");
    name(&mut b, 1, 3, 1);
    name(&mut b, 1, 3, 1);
    name(&mut b, 2, 3, 9);
    assert_eq!(told(&mut b), [], "one manager, and one of another life");
    name(&mut b, 2, 3, 1);
    assert_eq!(told(&mut b), group(&[3], &[1, 2, 3, 4]));
    name(&mut b, 3, 3, 1);
    assert_eq!(told(&mut b), []);
    assert!(!b.manager.may_bundle(NodeId(3)) && b.manager.may_bundle(NodeId(4)));
    // Another of the group dies.
    for by in [1, 2] {
        b.apply(Role::Manager(NodeId(by)), Op::Suspect { node: NodeId(4), incarnation: Incarnation(1) })
            .unwrap();
    }
    b.wait(Duration::from_secs(2));
    assert_eq!(told(&mut b), group(&[3, 4], &[1, 2, 3]));
    // Whoever joins hears of it; who joins again bundles again.
    b.agent(1, Op::Join { incarnation: Incarnation(2), cores: 2 }).unwrap();
    assert_eq!(told(&mut b), group(&[3, 4], &[1]));
    b.agent(3, Op::Join { incarnation: Incarnation(2), cores: 2 }).unwrap();
    assert_eq!(told(&mut b), [group(&[4], &[1, 2, 3]), group(&[4], &[3])].concat());
    assert!(b.manager.may_bundle(NodeId(3)));
    // No bundler: nothing to tell.
    b.agent(5, Op::Join { incarnation: Incarnation(2), cores: 2 }).unwrap();
    assert_eq!(told(&mut b), []);
}
