import ArgumentParser
import Wire

struct MPIRunCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "mpirun",
    abstract: "Fork a VM and run an MPI program over its clones, a rank in each; then end them.",
    discussion: """
      mpiexec runs in the VM, whose image needs mpich and libsnowflock, and reaches its clones by sf-exec. Standard \
      streams and signals are mpiexec's, and so is the exit status (128 + the signal that it was sent, where it says 0). What \
      is placed before the program is for mpiexec.

      EXAMPLE: sfctl mpirun -n 8 dev -- cpi
      """)

  @Argument(help: "The VM to fork: a device VM or a clone.") var name: String
  @Option(name: .short, help: "How many ranks, and clones.") var n: UInt32
  @Option(help: "A host to clone onto; may be given again.") var host: [String] = []
  @Option(help: "NAME=VALUE for the environment of the ranks; may be given again.")
  var env: [String] = []
  @Argument(parsing: .postTerminator, help: "The program and its arguments, after “--”.")
  var command: [String] = []

  func validate() throws {
    guard n > 0 else { throw ValidationError("-n takes 1 or more.") }
    guard !command.isEmpty else { throw ValidationError("a program is missing after “--”.") }
    for variable in env where variable.first == "=" || !variable.contains("=") {
      throw ValidationError("--env takes NAME=VALUE, not “\(variable)”.")
    }
  }

  func run() async throws {
    // Before the fork: a signal that comes between the two is mpiexec's.
    let session = try ExecSession()
    let fork = try await forkUnlessInterrupted()
    let status: Int32
    do {
      status = try await launch(over: fork, session)
    } catch {
      try await end(fork.ticket)
      throw error
    }
    try await end(fork.ticket)
    // mpiexec may end with 0 when its ranks were killed by a signal that it passed on.
    throw ExitCode(status == 0 ? ForwardedSignals.last.map { 128 + $0 } ?? 0 : status)
  }

  /// Interrupted before it has an answer, the daemon ends the clones by itself.
  private func forkUnlessInterrupted() async throws -> Snowfork_V1_ForkResult {
    let signals = ForwardedSignals()
    return try await withThrowingTaskGroup(of: Snowfork_V1_ForkResult.self) { group in
      group.addTask { try await fork() }
      group.addTask {
        guard let signal = await signals.stream.first(where: { _ in true }) else { throw CancellationError() }
        throw ExitCode(128 + signal)
      }
      defer { group.cancelAll() }
      guard let result = try await group.next() else { throw CancellationError() }
      return result
    }
  }

  private func fork() async throws -> Snowfork_V1_ForkResult {
    let request = Snowfork_V1_ForkRequest.with {
      $0.name = name
      $0.count = n
      $0.hosts = host
    }
    return try await ProgressLine.during("forking \(name)") { line in
      try await Daemon.call { client in
        try await client.fork(request, options: Daemon.options) { response in
          try await response.last(
            progress: { await line.update($0.progress) }, final: { $0.hasResult ? $0.result : nil })
        }
      }
    }
  }

  private func launch(over fork: Snowfork_V1_ForkResult, _ session: ExecSession) async throws -> Int32 {
    let clones = fork.clones.filter { $0.state == "running" }.map(\.name)
    guard !clones.isEmpty else {
      let reason = fork.clones.first?.reason ?? ""
      throw Failure("cannot run \(command[0]) over \(name): every clone is lost: \(reason). Try again.")
    }
    if clones.count < Int(n) {
      Standard.error("\(clones.count) of \(n) clones run: some have more than one rank.")
    }
    let start = Snowfork_V1_ExecInput.Start.with {
      $0.name = name
      $0.arguments = MPILauncher.arguments(ranks: n, clones: clones, environment: env, command: command)
    }
    return try await Daemon.call { try await session.run(start, $0) }
  }

  /// Ends the clones; on return nothing of them is left.
  private func end(_ ticket: String) async throws {
    try await ProgressLine.during("ending the clones of \(name)") { _ in
      try await Daemon.call { client in
        _ = try await client.kill(.with { $0.target = ticket })
        try await client.join(.with { $0.ticket = ticket }, options: Daemon.options) { response in
          for try await _ in response.messages {}
        }
      }
    }
  }
}

/// The command line of MPICH's mpiexec (Hydra) in a guest.
enum MPILauncher {
  /// Hydra starts a proxy in each clone: it calls the launcher as it would rsh, with the host and then the words of a
  /// command for the host's shell.
  static func arguments(
    ranks: UInt32, clones: [String], environment: [String], command: [String]
  ) -> [String] {
    let variables = environment.flatMap { variable in
      let parts = variable.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      return ["-genv", String(parts[0]), String(parts[1])]
    }
    return [
      "mpiexec.hydra", "-launcher", "rsh", "-launcher-exec", "/usr/bin/sf-rsh",
      "-hosts", clones.joined(separator: ","),
      // So that MPI_Finalize ends: see guest/c/preload/libsnowflock-mpi.c.
      "-genv", "LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/libsnowflock-mpi.so",
      "-genv", "UCX_ADAPTIVE_PROGRESS", "n",
    ] + variables + ["-n", "\(ranks)"] + command
  }
}
