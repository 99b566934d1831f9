import Glibc
import GRPCCore
import GuestWire
import Wire

/// One `sfctl exec`, or a guest's command in a clone: bytes between its stream and a command in the guest, both ways
/// with back-pressure.
struct ExecRelay {
  typealias Input = RPCAsyncSequence<Snowfork_V1_ExecInput, any Error>
  typealias Output = RPCWriter<Snowfork_V1_ExecOutput>

  let service: ForkService

  func run(input: Input, output: Output) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      let (started, startedContinuation) = AsyncThrowingStream.makeStream(of: GuestCommand.self)
      group.addTask { try await feed(input, startedContinuation) }
      do {
        for try await command in started {
          try await drain(command, into: output)
          break
        }
      } catch let elsewhere as Elsewhere {
        try await forward(elsewhere, to: output)
      } catch let error as NotStarted {
        try await output.write(.with { $0.stderr = .init(error.message.utf8) })
        try await output.write(.with { $0.exitStatus = error.status })
      } catch {
        group.cancelAll()
        throw error
      }
      group.cancelAll()
    }
  }

  /// The guest could not start it; the status is the shell's: 127 there is no such program, 126 it can not be run.
  private struct NotStarted: Error {
    var status: Int32
    var message: String
  }

  /// The VM is on another host: the whole conversation goes there. Each message of `input` is acknowledged, so that
  /// whoever sends waits for that host.
  private struct Elsewhere: Error {
    var host: String
    var input: AsyncThrowingStream<Snowfork_V1_ExecInput, any Error>
    var acknowledge: AsyncStream<Void>.Continuation
  }

  /// The first message starts the command; the others are its input. Once it is cancelled the command is ended: a
  /// guest's for certain, while an operator's is hung up on, for it may have been made to live on. So it is too when the
  /// asker's stream breaks.
  private func feed(
    _ input: Input, _ started: AsyncThrowingStream<GuestCommand, any Error>.Continuation
  ) async throws {
    var messages = input.makeAsyncIterator()
    do {
      guard case .start(let start) = try await messages.next()?.kind else {
        throw ForkError(.invalid, "cannot run a command: none was named. Name one after --.")
      }
      if let (host, there) = try await elsewhere(start) {
        try await pass(there, and: &messages, to: host, started)
        return
      }
      let command = try await command(start)
      let leave: @Sendable () -> Void = { start.ancestor.isEmpty ? command.abandon() : command.end() }
      try await withTaskCancellationHandler {
        started.yield(command)
        started.finish()
        do {
          try await feed(command, &messages)
          // A guest's stream ends only when its process has gone. An operator's may end before the command; what comes
          // of it later is a cancellation.
          if start.ancestor.isEmpty { command.closeInput() } else { leave() }
          for await _ in AsyncStream(Never.self, { _ in }) {}
        } catch {
          leave()
          throw error
        }
      } onCancel: {
        leave()
      }
    } catch {
      started.finish(throwing: error)
    }
  }

  private func feed(_ command: GuestCommand, _ messages: inout Input.AsyncIterator) async throws {
    while let message = try await messages.next() {
      switch message.kind {
      case .stdin(let bytes): try? await command.write(Array(bytes))
      case .stdinClosed: command.closeInput()
      case .signal(let number): command.signal(number)
      case .start, nil: break
      }
    }
  }

  private func command(_ start: Snowfork_V1_ExecInput.Start) async throws -> GuestCommand {
    let what = "cannot run \(start.arguments.first ?? "a command") in \(start.name)"
    let session = try await service.session(start.name)
    do {
      return try await session.run(start.arguments, environment: start.environment)
    } catch GuestError.refused(let errno, let message) where errno != 0 {
      let program = start.ancestor.isEmpty ? "sfctl" : "sf-exec"
      throw NotStarted(
        status: errno == ENOENT ? 127 : 126, message: "\(program): \(what): \(message).\n")
    } catch let error as GuestError {
      throw ForkError(.failed, "\(what): \(error). Check the command's name and the VM.")
    }
  }

  private func drain(_ command: GuestCommand, into output: Output) async throws {
    do {
      for try await event in command.output {
        switch event {
        case .output(let stream, let bytes):
          try await output.write(
            .with { if stream == .error { $0.stderr = .init(bytes) } else { $0.stdout = .init(bytes) } })
          command.consumed(stream, bytes.count)
        case .exited(let status):
          try await output.write(.with { $0.exitStatus = status })
        }
      }
    } catch let error as GuestError {
      throw ForkError(.failed, "the command was cut short: \(error). See sfctl ps.")
    }
  }

  // MARK: another host

  /// Where a command is to run, if not here, and what to ask for there.
  private func elsewhere(
    _ start: Snowfork_V1_ExecInput.Start
  ) async throws -> (host: String, start: Snowfork_V1_ExecInput.Start)? {
    guard !start.ancestor.isEmpty else {
      return await service.agentHost(of: start.name).map { ($0, start) }
    }
    guard let next = try await service.way(from: start.ancestor, to: start.name) else { return nil }
    var start = start
    start.ancestor = next.ancestor
    return (next.host, start)
  }

  private func pass(
    _ start: Snowfork_V1_ExecInput.Start, and messages: inout Input.AsyncIterator, to host: String,
    _ started: AsyncThrowingStream<GuestCommand, any Error>.Continuation
  ) async throws {
    let (input, relay) = AsyncThrowingStream.makeStream(of: Snowfork_V1_ExecInput.self)
    let (acknowledged, acknowledge) = AsyncStream.makeStream(of: Void.self)
    var acknowledgements = acknowledged.makeAsyncIterator()
    relay.yield(.with { $0.start = start })
    started.finish(throwing: Elsewhere(host: host, input: input, acknowledge: acknowledge))
    do {
      while await acknowledgements.next() != nil, let message = try await messages.next() {
        relay.yield(message)
      }
      relay.finish()
    } catch {
      // A stream that breaks here breaks there.
      relay.finish(throwing: error)
      throw error
    }
  }

  private func forward(_ call: Elsewhere, to output: Output) async throws {
    defer { call.acknowledge.finish() }
    let connection = try await service.cluster.reach(call.host)
    try await connection.snowfork.exec { writer in
      for try await message in call.input {
        try await writer.write(message)
        call.acknowledge.yield()
      }
    } onResponse: { response in
      for try await message in response.messages { try await output.write(message) }
    }
  }
}
