//! Runs the stories of `testdata/`: requests and answers over a store in memory. `UPDATE_EXPECT=1` writes the answers anew.
//!
//! A story is a text of blocks, parted by empty lines: a command, body lines, `----`, and what was answered.

mod story;

use story::Story;

macro_rules! stories {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                check(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/", stringify!($name), ".txt"));
            }
        )*
    };
}

stories!(
    rbac,
    custom,
    definitions,
    policies,
    mutating,
    objects,
    lists,
    pods,
    deployments,
    services,
    cluster,
    tables,
    workloads,
    batch,
    autoscaling,
    networking,
    storage,
    rights,
    quotas,
    events,
    admission,
    evictions,
    apply,
    limiting,
    pod_security,
    classes,
);

fn check(path: &str) {
    let script = std::fs::read_to_string(path).expect("the story can be read");
    let mut story = Story::new();
    let mut told = String::new();
    for block in script
        .split("\n\n")
        .filter(|block| !block.trim().is_empty())
    {
        let asked = block.split("\n----").next().unwrap_or(block).trim_end();
        told.push_str(asked);
        let request: Vec<&str> = asked
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect();
        if !request.is_empty() {
            told.push_str("\n----\n");
            told.push_str(&story.tell(request[0], &request[1..].join("\n")));
        }
        told.push_str("\n\n");
    }
    told.truncate(told.trim_end().len());
    told.push('\n');
    expect_test::expect_file![path].assert_eq(&told);
}
