import Testing

/// What is asked of the daemon for an MPI program; that the clones are gone afterwards is an integration test's affair.
@Suite struct MPIRunTests {
  @Test func mpiexecRunsInTheVMAndItsStatusIsOurs() async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl(
        "mpirun", "-n", "2", "--env", "A=b=c", "dev", "--", "cpi", "-n", "two words")
      #expect(
        outcome.output == "mpiexec.hydra -launcher rsh -launcher-exec /usr/bin/sf-rsh -hosts dev.1 "
          + "-genv LD_PRELOAD /usr/lib/x86_64-linux-gnu/libsnowflock-mpi.so -genv UCX_ADAPTIVE_PROGRESS n "
          + "-genv A b=c -n 2 cpi -n two words\n")
      #expect(outcome.error == "sfctl: 1 of 2 clones run: some have more than one rank.\n")
      #expect(outcome.status == 9)
    }
  }

  @Test(arguments: [("INT", 130), ("TERM", 143)])
  func signalsAreForMpiexec(name: String, status: Int32) async throws {
    try await FakeDaemon.serving { sfctl in
      let outcome = try await sfctl.shell(
        """
        set -m
        coproc timeout 20 "$SFCTL" mpirun -n 1 dev -- await-signal
        read -r -u ${COPROC[0]} line
        kill -\(name) $(pgrep -P $COPROC_PID); wait $COPROC_PID; echo $?
        """)
      #expect(outcome.output == "\(status)\n")
    }
  }

  @Test func whatFailsIsSaid() async throws {
    try await FakeDaemon.serving { sfctl in
      let unknown = try await sfctl("mpirun", "-n", "1", "nobody", "--", "cpi")
      #expect(unknown.status == 3 && unknown.output == "")
      let dead = try await sfctl("mpirun", "-n", "1", "dying", "--", "cpi")
      #expect(dead.status == 1)
      #expect(
        dead.error == "sfctl: cannot run cpi over dying: every clone is lost: its QEMU ended. Try again.\n")
      let lost = try await sfctl("mpirun", "-n", "1", "dev", "--", "lost")
      #expect(lost.status == 1 && lost.error == "sfctl: the VM is lost.\n")
      #expect(try await sfctl("mpirun", "-n", "1", "dev").status == 2)
      #expect(try await sfctl("mpirun", "dev", "--", "cpi").status == 2)
    }
  }
}
