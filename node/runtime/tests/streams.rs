//! Exec and attach: output, input, terminals, exit codes, deadlines.

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use node_runtime::{ContainerSpec, ExecOptions, Output, Process, Security};
use support::*;

/// Reads to the end and gives code, standard output and standard error.
async fn finish(mut process: Process) -> (i32, String, String) {
    let (mut stdout, mut stderr) = (vec![], vec![]);
    while let Some(output) = process.next().await {
        match output {
            Output::Stdout(data) => stdout.extend_from_slice(&data),
            Output::Stderr(data) => stderr.extend_from_slice(&data),
        }
    }
    let code = process.wait().await.expect("the exit code");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (code, text(stdout), text(stderr))
}

fn shell(command: &str) -> Vec<String> {
    words(&["/bin/sh", "-c", command])
}

#[test]
fn exec_gives_both_streams_the_code_and_the_containers_ways() {
    on_node(async |node| {
        let spec = ContainerSpec {
            env: vec![("OWN".into(), "own".into())],
            working_dir: Some("/tmp".into()),
            security: Security {
                run_as_user: Some(55),
                supplemental_groups: vec![66],
                ..Security::default()
            },
            ..script(&node, "a", "sleep 60")
        };
        let id = node.pods.start_container(POD, spec).await.expect("starts");
        let run = async |command: &str, options: &ExecOptions| {
            finish(
                node.pods
                    .exec(POD, &id, &shell(command), options)
                    .await
                    .expect("executes"),
            )
            .await
        };
        let plain = ExecOptions::default();
        assert_eq!(
            run("echo out; echo err >&2; exit 5", &plain).await,
            (5, "out\n".into(), "err\n".into())
        );
        assert_eq!(run("kill -9 $$", &plain).await.0, 137);
        let (_, text, _) = run(
            "pwd; id -u; id -G; echo $OWN $MORE; ulimit -n",
            &ExecOptions {
                env: vec![("MORE".into(), "more".into())],
                ..plain.clone()
            },
        )
        .await;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..4], ["/tmp", "55", "0 66", "own more"]);
        assert_ne!(lines[4], "1024");
        let (code, text, _) = run(
            "head -c 3000000 /dev/zero | tr '\\0' x 2>/dev/null || seq 1 400000",
            &plain,
        )
        .await;
        assert!(
            code == 0 && text.len() >= 2_500_000,
            "{code} {}",
            text.len()
        );
        let execs = node
            .dir
            .path()
            .join("run/pods")
            .join(POD)
            .join("c")
            .join(&id)
            .join("execs");
        let left = std::fs::read_dir(execs).expect("lists").count();
        assert_eq!(left, 0, "files of ended execs");
        let error = node
            .pods
            .exec(POD, &id, &words(&["nope"]), &plain)
            .await
            .expect_err("no such command");
        assert_eq!(
            error.to_string(),
            "failed to exec in container: exec: \"nope\": executable file not found in $PATH"
        );
        let error = node
            .pods
            .exec(POD, "none", &words(&["true"]), &plain)
            .await
            .expect_err("no such container");
        assert!(error.to_string().contains("is not in pod"), "{error}");
    });
}

#[test]
fn exec_reads_input_to_its_end() {
    on_node(async |node| {
        let id = node
            .pods
            .start_container(POD, script(&node, "a", "sleep 60"))
            .await
            .expect("starts");
        let with_input = ExecOptions {
            stdin: true,
            ..ExecOptions::default()
        };
        let process = node
            .pods
            .exec(POD, &id, &shell("wc -c"), &with_input)
            .await
            .expect("executes");
        let input = process.input.clone();
        let writer = tokio::spawn(async move {
            for _ in 0..20 {
                input
                    .write(Bytes::from(vec![b'x'; 100_000]))
                    .await
                    .expect("writes");
            }
            input.close().await.expect("closes");
        });
        let (code, text, _) = finish(process).await;
        writer.await.expect("wrote");
        assert_eq!((code, text.as_str()), (0, "2000000\n"));
        let (code, text, _) = finish(
            node.pods
                .exec(POD, &id, &shell("cat; echo end"), &ExecOptions::default())
                .await
                .expect("executes"),
        )
        .await;
        assert_eq!(
            (code, text.as_str()),
            (0, "end\n"),
            "without an input there is an empty one"
        );
    });
}

#[test]
fn a_terminal_is_one_has_a_size_and_can_be_resized() {
    on_node(async |node| {
        let id = node
            .pods
            .start_container(POD, script(&node, "a", "sleep 60"))
            .await
            .expect("starts");
        let options = ExecOptions {
            tty: true,
            stdin: true,
            size: Some((100, 30)),
            ..ExecOptions::default()
        };
        let mut process = node
            .pods
            .exec(
                POD,
                &id,
                &shell("stty size; read x; stty size; echo got $x $TERM >&2; test -t 0"),
                &options,
            )
            .await
            .expect("executes");
        let mut seen = String::new();
        while !seen.contains("30 100") {
            match process.next().await {
                Some(Output::Stdout(data)) => seen.push_str(&String::from_utf8_lossy(&data)),
                other => panic!("{other:?} after {seen:?}"),
            }
        }
        process.input.resize(80, 24).await.expect("resizes");
        process
            .input
            .write(Bytes::from_static(b"word\n"))
            .await
            .expect("writes");
        let (code, rest, errors) = finish(process).await;
        assert_eq!((code, errors.as_str()), (0, ""));
        assert!(
            rest.contains("24 80") && rest.contains("got word xterm"),
            "{rest:?}"
        );
    });
}

#[test]
fn a_dropped_exec_is_killed_and_a_deadline_is_kept() {
    on_node(async |node| {
        let id = node
            .pods
            .start_container(POD, script(&node, "a", "sleep 60"))
            .await
            .expect("starts");
        let begun = Instant::now();
        let error = node
            .pods
            .exec_capture(
                POD,
                &id,
                &shell("sleep 4322"),
                Duration::from_millis(300),
                100,
            )
            .await
            .expect_err("takes too long");
        assert!(
            error.to_string().contains("did not end within 300ms")
                && begun.elapsed() < Duration::from_secs(5),
            "{error}"
        );
        for _ in 0..100 {
            if exec(&node, &id, "ps | grep -c '[s]leep 4322'")
                .await
                .1
                .trim()
                == "0"
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the command is still there");
    });
}

#[test]
fn attach_sees_what_comes_and_feeds_standard_input() {
    on_node(async |node| {
        let spec = ContainerSpec {
            stdin: true,
            stdin_once: true,
            ..script(
                &node,
                "a",
                "while read line; do echo \"<$line>\"; done; echo over; exit 4",
            )
        };
        let id = node.pods.start_container(POD, spec).await.expect("starts");
        let process = node.pods.attach(POD, &id, None).await.expect("attaches");
        process
            .input
            .write(Bytes::from_static(b"one\ntwo\n"))
            .await
            .expect("writes");
        process.input.close().await.expect("closes");
        let (code, text, _) = finish(process).await;
        assert_eq!((code, text.as_str()), (4, "<one>\n<two>\nover\n"));
        assert_eq!(
            log(&node, "a"),
            ["stdout F <one>", "stdout F <two>", "stdout F over"]
        );
        let spec = ContainerSpec {
            stdin: true,
            tty: true,
            ..script(
                &node,
                "b",
                "test -t 1 && stty -echo; read a; echo got $a; sleep 60",
            )
        };
        let id = node.pods.start_container(POD, spec).await.expect("starts");
        let process = node
            .pods
            .attach(POD, &id, Some((90, 20)))
            .await
            .expect("attaches");
        process
            .input
            .write(Bytes::from_static(b"it\n"))
            .await
            .expect("writes");
        while !log(&node, "b")
            .iter()
            .any(|line| line.starts_with("stdout F got it"))
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(process);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(
            exec(&node, &id, "echo lives").await,
            (0, "lives\n".into()),
            "a container outlives its viewers"
        );
    });
}
