import Testing

@Suite struct ExecTests {
  @Test func streamsAndStatusPassThrough() async throws {
    try await FakeDaemon.serving { sfctl in
      let echo = try await sfctl("exec", "dev", "--env", "A=b", "--", "echo", "-n", "--json", "two words")
      #expect(echo.output == "-n --json two words A=b\n")
      #expect(echo.error == "to stderr\n")
      #expect(echo.status == 0)
      #expect(try await sfctl("exec", "dev", "--", "exit", "7").status == 7)
      #expect(try await sfctl("exec", "dev", "--", "exit", "137").status == 137)
    }
  }

  /// 64 MiB each way through pipes, both directions at once.
  @Test func bulkDataComesBackWhole() async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl.shell(
        """
        head -c 67108864 /dev/urandom | tee >(sha256sum >"$SNOWFORK_RUN/in") | "$SFCTL" exec dev -- cat \
          | sha256sum >"$SNOWFORK_RUN/out"
        while [ ! -s "$SNOWFORK_RUN/in" ]; do sleep 0.01; done
        cmp "$SNOWFORK_RUN/in" "$SNOWFORK_RUN/out"
        """)
      #expect(outcome.error == "")
      #expect(outcome.status == 0)
    }
  }

  /// Nothing is held back until the end: an answer comes while stdin is still open.
  @Test func conversationsWork() async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl.shell(
        """
        coproc "$SFCTL" exec dev -- cat
        echo one >&${COPROC[1]}; read -r -u ${COPROC[0]} a
        echo two >&${COPROC[1]}; read -r -u ${COPROC[0]} b
        input=${COPROC[1]}; exec {input}>&-; wait $COPROC_PID; echo "$a $b $?"
        """)
      #expect(outcome.output == "one two 0\n")
    }
  }

  @Test func closedStdinIsAnEnd() async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl.shell("\"$SFCTL\" exec dev -- cat <&-")
      #expect(outcome.status == 0)
      #expect(outcome.output == "" && outcome.error == "")
    }
  }

  /// The command has ended: an open stdin holds nothing up.
  @Test func openStdinDoesNotOutliveTheCommand() async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl.shell(
        """
        mkfifo "$SNOWFORK_RUN/open"; exec 3<>"$SNOWFORK_RUN/open"
        timeout 20 "$SFCTL" exec dev -- exit 5 <&3
        """)
      #expect(outcome.status == 5)
    }
  }

  @Test func readerThatGoesAwayEndsIt() async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl.shell(
        "timeout 20 \"$SFCTL\" exec dev -- flood | head -c 5; echo \" ${PIPESTATUS[0]}\"")
      #expect(outcome.output == "yyyyy 141\n")
      #expect(outcome.error == "")
    }
  }

  @Test(arguments: [("INT", 130), ("TERM", 143), ("HUP", 129)])
  func signalsAreForwarded(name: String, status: Int32) async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl.shell(
        """
        set -m
        coproc timeout 20 "$SFCTL" exec dev -- await-signal
        read -r -u ${COPROC[0]} word
        kill -\(name) $(pgrep -P $COPROC_PID); wait $COPROC_PID; echo "$word $?"
        """)
      #expect(outcome.output == "ready \(status)\n")
    }
  }

  @Test func refusalsAreNotTheCommandsStatus() async throws {
    try await FakeDaemon.serving { sfctl in
      let unknown = try await sfctl("exec", "nobody", "--", "true")
      #expect(unknown.status == 3)
      #expect(unknown.error == "sfctl: cannot run a command in nobody: no such VM. Try “sfctl ps”.\n")
      let vanished = try await sfctl("exec", "dev", "--", "vanish")
      #expect(vanished.status == 1)
      #expect(vanished.error.contains("the VM has ended meanwhile"))
    }
  }
}
