//! What is tried on both clusters: commands that busybox and the shell of any machine have.

use serde_json::Value;

pub(super) struct Scenario {
    /// Also the event's id and the Keptn service.
    pub(super) name: &'static str,
    pub(super) event_type: &'static str,
    /// The actions of the config; where there are none, a whole config.
    pub(super) config: Option<&'static str>,
    pub(super) job_is_deleted: bool,
    /// How many come of it.
    pub(super) jobs: usize,
    pub(super) events: usize,
    /// The HTTP answer, and the verdict of `.finished`.
    pub(super) ends: &'static str,
}

const TRIGGERED: &str = "sh.keptn.event.test.triggered";

const fn scenario(
    name: &'static str,
    jobs: usize,
    ends: &'static str,
    config: &'static str,
) -> Scenario {
    Scenario {
        name,
        event_type: TRIGGERED,
        config: Some(config),
        job_is_deleted: false,
        jobs,
        events: 2,
        ends,
    }
}

/// With the event and the version around the actions; a task's `BUSYBOX` is an image.
pub(super) fn config(actions: &str) -> String {
    let event = "events: [{name: sh.keptn.event.test.triggered}]";
    let config = actions.replace("ON_TEST", event);
    if config.contains("apiVersion") {
        return config;
    }
    format!("apiVersion: v2\nactions:\n{config}")
}

pub(super) fn in_short(seen: &Value) -> String {
    let answer = seen["answer"].as_str().unwrap();
    let events = seen["events"].as_array();
    let verdict = events.and_then(|events| events.last()).map(|event| {
        let [status, result] = ["status", "result"].map(|field| event["data"][field].as_str());
        format!(" {} {}", status.unwrap(), result.unwrap())
    });
    answer[..3].to_owned() + &verdict.unwrap_or_default()
}

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario(
        "one-task",
        1,
        "202 succeeded pass",
        "  - {name: a, ON_TEST, tasks: [{name: one, image: BUSYBOX, cmd: [echo], args: [hello]}]}",
    ),
    scenario(
        "three-tasks",
        3,
        "202 succeeded pass",
        "  - name: a
    ON_TEST
    tasks:
      - {name: one, image: BUSYBOX, cmd: [echo, first]}
      - {name: two, image: BUSYBOX, cmd: [echo, second], ttlSecondsAfterFinished: 600}
      - {name: three, image: BUSYBOX, cmd: ['true'], annotations: {example.com/a: b}}",
    ),
    scenario(
        "the-second-task-fails",
        2,
        "202 errored fail",
        "  - name: a
    ON_TEST
    tasks:
      - {name: one, image: BUSYBOX, cmd: [echo, first]}
      - {name: two, image: BUSYBOX, cmd: [sh, -c, 'echo boom; exit 3']}
      - {name: three, image: BUSYBOX, cmd: [echo, never]}",
    ),
    scenario(
        "one-of-two-actions-fails",
        3,
        "202 errored fail",
        "  - {name: bad, ON_TEST, tasks: [{name: one, image: BUSYBOX, cmd: ['false']}]}
  - {name: other, events: [{name: sh.keptn.event.other.triggered}], tasks: [{name: no, image: BUSYBOX}]}
  - name: good
    ON_TEST
    tasks:
      - {name: two, image: BUSYBOX, cmd: [echo, second]}
      - {name: three, image: BUSYBOX, cmd: [echo, third]}",
    ),
    Scenario {
        events: 0,
        ..scenario(
            "a-silent-action",
            1,
            "202",
            "  - {name: a, silent: true, ON_TEST, tasks: [{name: one, image: BUSYBOX, cmd: [echo, hello]}]}",
        )
    },
    Scenario {
        event_type: "sh.keptn.event.test.finished",
        events: 0,
        ..scenario(
            "an-event-that-is-not-triggered",
            1,
            "202",
            "  - {name: a, events: [{name: sh.keptn.event.test.finished}],
     tasks: [{name: one, image: BUSYBOX, cmd: [echo, hello]}]}",
        )
    },
    Scenario {
        events: 0,
        ..scenario(
            "no-action-matches",
            0,
            "200",
            "  - {name: a, events: [{name: sh.keptn.event.tset.triggered}], tasks: [{name: one, image: BUSYBOX}]}",
        )
    },
    Scenario {
        config: None,
        events: 0,
        ..scenario("no-config", 0, "200", "")
    },
    scenario(
        "a-broken-config",
        0,
        "202 errored fail",
        "apiVersion: v2\nactions: [{name: a, evnts: [], tasks: 3}]",
    ),
    scenario(
        "a-refused-config",
        0,
        "202 errored fail",
        "  - {name: a, ON_TEST, tasks: [{name: one, image: BUSYBOX, securityContext: {privileged: true}}]}",
    ),
    scenario(
        "files",
        1,
        "202 succeeded pass",
        "  - name: a
    ON_TEST
    tasks:
      - {name: one, image: BUSYBOX, files: [a.txt, folder],
         cmd: [sh, -c, 'cd /keptn && echo new >folder/new && find . -type f | sort && cat a.txt folder/*']}",
    ),
    scenario(
        "a-missing-file",
        1,
        "202 errored fail",
        "  - {name: a, ON_TEST, tasks: [{name: one, image: BUSYBOX, files: [not/there], cmd: [echo, never]}]}",
    ),
    scenario(
        "variables",
        1,
        "202 succeeded pass",
        r#"  - name: a
    ON_TEST
    tasks:
      - name: one
        image: BUSYBOX
        cmd: [sh, -c, 'for value; do echo "<$value>"; done; echo "$$MULTI$HOSTILE$STAGED$MONEY"', $(KEPTN_STAGE)]
        args: [$(KEPTN_STAGE), $(NOT_THERE), $$(KEPTN_STAGE), $$$(KEPTN_STAGE), $(LATER), $(, $]
        env:
          - {name: MULTI, value: "1=2\n3 = '4'\n", valueFrom: string}
          - {name: HOSTILE, value: $.data.hostile, valueFrom: event}
          - {name: STAGED, value: in $(KEPTN_STAGE) $(LATER), valueFrom: string}
          - {name: MONEY, value: $$5 $$(KEPTN_STAGE) $(STAGED), valueFrom: string}
          - {name: LATER, value: late, valueFrom: string}"#,
    ),
    scenario(
        "secrets",
        1,
        "202 succeeded pass",
        "  - name: a
    ON_TEST
    tasks:
      - name: one
        image: BUSYBOX
        cmd: [sh, -c, 'echo \"$(USER_NAME) $PASSWORD $BOTH\"']
        env:
          - {name: credentials, valueFrom: secret}
          - {name: BOTH, value: $(USER_NAME) $(PASSWORD), valueFrom: string}
          - {name: USER_NAME, value: not $(USER_NAME), valueFrom: string}",
    ),
    scenario(
        "a-missing-secret",
        1,
        "202 errored fail",
        "  - {name: a, ON_TEST, tasks: [{name: one, image: BUSYBOX, cmd: [echo, never],
     env: [{name: not-there, valueFrom: secret}]}]}",
    ),
    scenario(
        "a-working-directory",
        2,
        "202 succeeded pass",
        "  - name: a
    ON_TEST
    tasks:
      - {name: one, image: BUSYBOX, files: [folder], workingDir: /keptn/folder, cmd: [sh, -c, 'pwd; ls; touch x']}
      - {name: two, image: BUSYBOX, workingDir: /keptn/not/there, cmd: [pwd]}",
    ),
    // Whoever is told to end takes a while, so that the answer is out before on both.
    scenario(
        "over-the-time-limit",
        1,
        "202 errored fail",
        "  - name: a
    ON_TEST
    tasks:
      - {name: one, image: BUSYBOX, maxPollDuration: 30,
         cmd: [sh, -c, 'trap \"sleep 2; exit 143\" TERM; echo so far; sleep 1000 & wait']}
      - {name: two, image: BUSYBOX, cmd: [echo, never]}",
    ),
    // At a desk both go through one pipe, so that a line without an end goes on with the other's.
    scenario(
        "both-outputs",
        1,
        "202 succeeded pass",
        "  - name: a
    ON_TEST
    tasks:
      - {name: one, image: BUSYBOX,
         cmd: [sh, -c, 'echo 1; sleep 0.3; echo 2 >&2; sleep 0.3; echo 4 >&2; sleep 0.3; printf 3']}",
    ),
    scenario(
        "odd-output",
        1,
        "202 succeeded pass",
        "  - name: a
    ON_TEST
    tasks:
      - {name: one, image: BUSYBOX,
         cmd: [sh, -c, 'head -c 40000 /dev/zero | tr \"\\\\0\" x; echo; printf \"a\\\\377b\\\\n\\\\tc\"']}",
    ),
    scenario(
        "killed-by-a-signal",
        1,
        "202 errored fail",
        // The kernel kills it: a process that is a container's first one is deaf to its own `kill`.
        "  - {name: a, ON_TEST, tasks: [{name: one, image: BUSYBOX,
     cmd: [sh, -c, 'echo so far; ulimit -t 1; while :; do :; done']}]}",
    ),
    scenario(
        "no-such-program",
        1,
        "202 errored fail",
        "  - {name: a, ON_TEST, tasks: [{name: one, image: BUSYBOX, cmd: [no-such-program]}]}",
    ),
    scenario(
        "a-task-that-fails-again",
        1,
        "202 errored fail",
        "  - {name: a, ON_TEST, tasks: [{name: one, image: BUSYBOX, retries: 1, cmd: [sh, -c, 'echo boom; exit 3']}]}",
    ),
    scenario(
        "a-warning-and-a-clean-up",
        3,
        "202 errored fail",
        "  - name: a
    ON_TEST
    tasks:
      - {name: one, image: BUSYBOX, onFailure: warn, cmd: ['false']}
      - {name: two, image: BUSYBOX, cmd: ['false']}
      - {name: three, image: BUSYBOX, cmd: [echo, never]}
      - {name: four, image: BUSYBOX, always: true, cmd: [echo, cleaned]}",
    ),
    scenario(
        "a-result",
        1,
        "202 succeeded pass",
        "  - {name: a, ON_TEST, tasks: [{name: one, image: BUSYBOX, resultFile: /keptn/.result.json,
     cmd: [sh, -c, 'echo \"{\\\"score\\\": 7}\" > /keptn/.result.json']}]}",
    ),
    scenario(
        "keys-of-a-secret",
        1,
        "202 succeeded pass",
        "  - name: a
    ON_TEST
    tasks:
      - name: one
        image: BUSYBOX
        cmd: [sh, -c, 'echo $WORD $TEXT $C_PASSWORD ${NONE-unset}']
        env:
          - {name: WORD, valueFrom: {secretKeyRef: {name: credentials, key: PASSWORD}}}
          - {name: TEXT, value: 'is $(WORD)', valueFrom: string}
          - {name: NONE, valueFrom: {secretKeyRef: {name: gone, key: x, optional: true}}}
        envFrom: [{prefix: C_, secretRef: {name: credentials}}]",
    ),
    scenario(
        "files-of-other-levels",
        1,
        "202 succeeded pass",
        "  - {name: a, ON_TEST, tasks: [{name: one, image: BUSYBOX, files: ['*.txt', {path: 'shared', level: stage}],
     cmd: [sh, -c, 'cd /keptn && find . -type f | sort']}]}",
    ),
    Scenario {
        job_is_deleted: true,
        ..scenario(
            "a-job-deleted-by-hand",
            1,
            "202 errored fail",
            "  - {name: a, ON_TEST, tasks: [{name: one, image: BUSYBOX,
     cmd: [sh, -c, 'trap \"sleep 2; exit 143\" TERM; echo so far; sleep 1000 & wait']}]}",
        )
    },
];
