import Testing

/// What `sfctl offload` asks of a guest, and what it makes of the answer.
@Suite struct OffloadTests {
  private static let summary =
    "sfctl: 3 calls: 2 in a clone, 1 at home, 0 in conflict; 2 MiB out, 4 KiB home; "
    + "going 265.0 ms, running 77.0 ms, merging 1.4 ms.\n"

  @Test func theGuestsProgramIsToldEverything() async throws {
    try await FakeDaemon.serving { sfctl in
      let usual = try await sfctl("offload", "dev", "--block", "f", "--", "arguments", "--json", "two words")
      #expect(
        usual.output
          == "/usr/bin/sf-offload --block f --mode always --clone auto --report-mark MARK "
          + "-- arguments --json two words\n")
      #expect(usual.error == Self.summary && usual.status == 7)
      let all = try await sfctl(
        "offload", "dev", "--block", "f", "--to", "h1", "--merge", "words", "--mode", "auto", "--env",
        "A=b=c",
        "--", "arguments")
      #expect(
        all.output == "/usr/bin/sf-offload --block f --mode auto --clone auto --merge words --host h1 "
          + "--report-mark MARK -- arguments A=b=c\n")
    }
  }

  /// To the byte: scripts rely on these names.
  @Test func jsonIsTheReportAloneOnStdout() async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl.shell(
        "echo from stdin | \"$SFCTL\" offload dev --block f --json -- cat")
      #expect(outcome.output == FakeOffload.report + "\n")
      #expect(outcome.error == "from stdin\n" && outcome.status == 7)
    }
  }

  @Test func streamsPassThrough() async throws {
    try await FakeDaemon.serving { sfctl in
      let bulk = try await sfctl.shell(
        """
        head -c 8388608 /dev/urandom >"$SNOWFORK_RUN/in"
        "$SFCTL" offload dev --block f -- cat <"$SNOWFORK_RUN/in" 2>/dev/null | cmp - "$SNOWFORK_RUN/in"; \
        echo ${PIPESTATUS[0]} ${PIPESTATUS[1]}
        """)
      #expect(bulk.output == "7 0\n", "\(bulk.error)")
      let words = try await sfctl("offload", "dev", "--block", "f", "--", "words")
      #expect(words.output == "more\n")
      #expect(
        words.error == "sfctl: cannot run /usr/bin/sf-offload in a joke\nsf-offloadlast words\n"
          + Self.summary)
    }
  }

  @Test(arguments: [("INT", 130), ("TERM", 143)])
  func signalsAreTheProgramsAndTheReportIsStillTaken(name: String, status: Int32) async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl.shell(
        """
        set -m
        coproc timeout 20 "$SFCTL" offload dev --block f -- await-signal
        read -r -u ${COPROC[0]} word
        kill -\(name) $(pgrep -P $COPROC_PID); wait $COPROC_PID; echo "$word $?"
        """)
      #expect(outcome.output == "ready \(status)\n")
      #expect(outcome.error.contains(Self.summary))
    }
  }

  @Test func whatFailsIsSaid() async throws {
    try await FakeDaemon.serving { sfctl in
      let old = try await sfctl("offload", "old", "--block", "f", "--", "true")
      #expect(old.status == 1 && old.output == "")
      #expect(
        old.error
          == "sfctl: cannot offload in old: its image has no /usr/bin/sf-offload, or it does not run there. "
          + "Make the image again with sfctl image build, and start the VM with it.\n")
      let unknown = try await sfctl("offload", "nobody", "--block", "f", "--", "true")
      #expect(unknown.status == 3 && unknown.error.contains("no such VM"))
      let host = try await sfctl("offload", "dev", "--block", "f", "--to", "h9", "--", "true")
      #expect(host.status == 3)
      #expect(host.error == "sfctl: cannot offload to h9: there is no host h9. See sfctl host ls.\n")
      for options in [[], ["--json"]] {
        let symbol = try await sfctl.shell(
          "\"$SFCTL\" offload dev --block nobody \(options.joined()) -- no-symbol")
        #expect(symbol.status == 2 && symbol.output == "")
        #expect(symbol.error == "sf-offload: no-symbol has no function nobody. See nm -D.\n")
      }
      for program in ["no-report", "bad-report"] {
        let silent = try await sfctl("offload", "dev", "--block", "f", "--json", "--", program)
        #expect(silent.status == 1 && silent.output == "")
        #expect(
          silent.error.hasPrefix("sfctl: cannot tell what became of \(program) in dev: sf-offload ended with")
        )
      }
    }
  }

  @Test(arguments: [
    "dev -- true", "dev --block f", "dev --block '' -- true", "dev --block f --merge lines -- true",
    "dev --block f --mode often -- true", "dev --block f --env X -- true",
  ])
  func wrongCommandLines(_ line: String) async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl.shell("\"$SFCTL\" offload \(line)")
      #expect(outcome.status == 2 && outcome.output == "" && outcome.error.hasPrefix("sfctl: cannot read"))
    }
  }
}
