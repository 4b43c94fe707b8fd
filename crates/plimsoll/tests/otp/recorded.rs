//! Random supervisors against what Erlang/OTP answered to the same.
//!
//! `recorded/otp.txt` holds cases that were run once by `supervisor` of OTP 25.2.3 on 21 November 2026, with its answers
//! (`scripts/otp/cases.py 300 7`, `scripts/otp/oracle.erl`).
//! A case is a supervisor (`case name strategy intensity auto_shutdown`, period 100,000 s), its children and the specs for
//! later (`child|spec id restart significant stop shutdown`), and how the starts of each go one after the other (`starts
//! id ok|ignore|fail…`, `ok` after the last). What is told after `/` happens inside of a stop or a start that fails: a
//! sibling ends, or an operation is asked for. After every step, `> answer | what children did | children`:
//! `+` a start, `!` a failed one, `~` an ignored one, `-` asked to stop; children `+` run, `~` restart, `-` do not run.

mod stage;

use std::collections::BTreeMap;
use std::time::Duration;

use plimsoll::exit::ExitReason;
use plimsoll::supervisor::{
    AutoShutdown, Backoff, ChildEntry, ChildState, DynamicSupervisor, StartError, StopFailureKind, Strategy, Supervisor,
};
use stage::{Stage, Tree, grace, operate, restart_type, start};

const PERIOD: Duration = Duration::from_secs(100_000);

fn auto(word: &str) -> AutoShutdown {
    match word {
        "never" => AutoShutdown::Never,
        "any_significant" => AutoShutdown::AnySignificant,
        _ => AutoShutdown::AllSignificant,
    }
}

fn word(reason: &ExitReason) -> &'static str {
    match reason {
        ExitReason::Normal => "normal",
        ExitReason::Shutdown => "shutdown",
        ExitReason::ShutdownWith { .. } => "term",
        ExitReason::Killed => "killed",
        _ => "crash",
    }
}

fn shown(tree: &Tree, stage: &Stage) -> String {
    let Ok((children, _)) = tree.children() else {
        let report = tree.report().expect("it has ended");
        return format!("over {}", word(&report.reason));
    };
    let name = |child: &ChildEntry| match (&child.id, &child.state) {
        (Some(id), _) => id.to_string(),
        (None, ChildState::Running(actor)) => {
            let props = stage.0.lock().unwrap();
            let named = props.actors.iter().find(|(_, known)| known.get_id() == actor.get_id());
            named.expect("a member").0.clone()
        }
        _ => String::new(),
    };
    let child = |child: &ChildEntry| {
        let state = match child.state {
            ChildState::Running(_) => '+',
            ChildState::Restarting => '~',
            _ => '-',
        };
        format!("{}{state}", name(child))
    };
    let mut shown: Vec<_> = children.iter().rev().map(child).collect();
    if matches!(tree, Tree::Dynamic(_)) {
        shown.sort();
    }
    shown.join(" ")
}

async fn step(words: &[&str], tree: &Tree, stage: &Stage) -> String {
    match *words {
        ["end", id, how] => match stage.end(id, how) {
            Some(actor) => {
                let _ = actor.wait(None).await;
                "ended".to_owned()
            }
            None => "none".to_owned(),
        },
        ["stop"] => {
            let alive = tree.report().is_none();
            let report = tree.stop().await;
            let told = report.failures.iter().filter(|_| alive).map(|failure| {
                let what = match &failure.kind {
                    StopFailureKind::Ended(reason) => word(reason),
                    StopFailureKind::Killed => "killed",
                    _ => "left",
                };
                (failure.path[0].to_string(), what)
            });
            let mut counts = BTreeMap::new();
            let told: Vec<String> = match tree {
                Tree::Static(_) => told.map(|(id, what)| format!(" {id}={what}")).collect(),
                Tree::Dynamic(_) => {
                    told.for_each(|(_, what)| *counts.entry(what).or_insert(0) += 1);
                    counts.iter().map(|(what, n)| format!(" {what}={n}")).collect()
                }
            };
            format!("report{}", told.concat())
        }
        ["count"] => match tree.children() {
            Ok((_, count)) => format!("{} {} {} {}", count.specs, count.active, count.supervisors, count.workers),
            Err(_) => "gone".to_owned(),
        },
        [op, id] => operate(tree, op, id, stage).await,
        _ => panic!("an unknown step: {words:?}"),
    }
}

/// Starts the supervisor of a case.
async fn launch(head: &[&str], boot: &[String], stage: &Stage) -> Result<Tree, StartError> {
    let (intensity, auto) = (head[3].parse().expect("a number"), auto(head[4]));
    let strategy = match head[2] {
        "one_for_one" => Strategy::OneForOne,
        "one_for_all" => Strategy::OneForAll,
        "rest_for_one" => Strategy::RestForOne,
        _ => {
            let words = stage.0.lock().unwrap().specs["t"].clone();
            let (members, stop) = (stage.clone(), words[4].clone());
            let template = move |parent, id| start(members.clone(), id, stop.clone(), parent);
            let builder = DynamicSupervisor::builder("top", template)
                .restart(restart_type(&words[2]))
                .significant(words[3] == "significant")
                .shutdown(grace(&words[5]))
                .backoff(Backoff::NONE)
                .intensity(intensity, PERIOD)
                .auto_shutdown(auto);
            return builder.start().await.map(Tree::Dynamic);
        }
    };
    let builder = Supervisor::builder("top").strategy(strategy).intensity(intensity, PERIOD).auto_shutdown(auto);
    builder.children(boot.iter().map(|id| stage.spec(id))).start().await.map(Tree::Static)
}

/// Whether two lines say the same. What was asked for meanwhile is compared without its place, the failures of a report
/// without their order: ours tells of both when it sees them, OTP when it gets to them. Where the supervisor's end
/// overtakes an operation, ours says so at once, OTP some time later or not. The order in which a dynamic supervisor
/// stops its children is nobody's.
fn same(ours: &str, theirs: &str, dynamic: bool) -> bool {
    let over = ours.contains("| over ");
    let sorted = |line: &str| {
        let overtaken =
            ["> gone ", "> failed ", "> started "].into_iter().find(|answer| over && line.starts_with(answer));
        let line = overtaken.map_or_else(|| line.to_owned(), |answer| line.replacen(answer, "> ok ", 1));
        let apart = |word: &String| word.contains([':', '=']) || (dynamic && word.starts_with('-'));
        let (mut apart, rest): (Vec<_>, Vec<_>) = line.split_whitespace().map(str::to_owned).partition(apart);
        apart.retain(|word| !over || !word.contains(':'));
        apart.sort();
        (rest, apart)
    };
    sorted(ours) == sorted(theirs)
}

/// Runs a case; the first difference, if there is one.
async fn run(lines: &[&str]) -> Result<(), String> {
    let mut lines = lines.iter().map(|line| line.split(' ').collect::<Vec<_>>());
    let head = lines.next().expect("a head");
    let stage = Stage::default();
    let mut boot = Vec::new();
    let mut answer = String::new();
    let mut tree = None;
    let mut path = head.join(" ");
    for words in lines {
        match words[0] {
            "child" | "spec" => {
                let spec = words.iter().map(|word| (*word).to_owned()).collect();
                stage.0.lock().unwrap().specs.insert(words[1].to_owned(), spec);
                if words[0] == "child" {
                    boot.push(words[1].to_owned());
                }
            }
            "starts" => {
                let starts = words[2..].iter().map(|word| (*word).to_owned()).collect();
                stage.0.lock().unwrap().starts.insert(words[1].to_owned(), starts);
            }
            ">" => {
                if tree.is_none() {
                    answer = match launch(&head, &boot, &stage).await {
                        Ok(launched) => {
                            stage.0.lock().unwrap().tree = Some(launched.clone());
                            tree = Some(launched);
                            "up".to_owned()
                        }
                        Err(StartError::FailedToStart { id, .. }) => format!("failed {id}"),
                        Err(error) => format!("error {error}"),
                    };
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
                let children = tree.as_ref().map(|tree| shown(tree, &stage)).unwrap_or_default();
                let ours = format!("> {answer} | {} | {children}", stage.did().join(" "));
                let theirs = words.join(" ");
                if !same(&ours, &theirs, head[2] == "simple") {
                    return Err(format!("{path}\nOTP  {theirs}\nours {ours}"));
                }
                path += &format!("\n{theirs}");
            }
            _ => {
                path += &format!("\n{}", words.join(" "));
                answer = step(&words, tree.as_ref().expect("a tree"), &stage).await;
            }
        }
    }
    Ok(())
}

fn replay(case: &[&str]) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let ran = tokio::time::timeout(Duration::from_secs(1_000), run(case)).await;
        ran.unwrap_or_else(|_| Err(format!("{}\nhung", case.join("\n"))))
    })
}

/// `PLIMSOLL_RECORDED` names another file of cases.
#[test]
fn otp_recorded_cases() {
    let recorded = match std::env::var("PLIMSOLL_RECORDED") {
        Ok(path) => std::fs::read_to_string(path).expect("a file of cases"),
        Err(_) => include_str!("recorded/otp.txt").to_owned(),
    };
    let mut cases: Vec<Vec<&str>> = Vec::new();
    for line in recorded.lines() {
        if line.starts_with("case ") {
            cases.push(Vec::new());
        }
        cases.last_mut().expect("a case").push(line);
    }
    let differences: Vec<String> = cases.iter().filter_map(|case| replay(case).err()).collect();
    assert!(
        differences.is_empty(),
        "{} of {} cases differ\n{}",
        differences.len(),
        cases.len(),
        differences.join("\n\n")
    );
}
