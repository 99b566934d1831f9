import Glibc
import GRPCCore
import GuestWire
import Wire

/// One `sfctl exec`: bytes between its stream and a command in the guest, both ways with back-pressure.
struct ExecRelay {
  let service: ForkService

  func run(
    input: RPCAsyncSequence<Snowfork_V1_ExecInput, any Error>, output: RPCWriter<Snowfork_V1_ExecOutput>
  ) async throws {
    try await withThrowingTaskGroup(of: Void.self) { group in
      let (started, startedContinuation) = AsyncThrowingStream.makeStream(of: GuestCommand.self)
      group.addTask { try await feed(input, startedContinuation) }
      do {
        for try await command in started {
          try await withTaskCancellationHandler {
            try await drain(command, into: output)
          } onCancel: {
            command.abandon()
          }
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

  /// The VM is on another host: the whole conversation goes there.
  struct Elsewhere: Error {
    var host: String
    var input: AsyncStream<Snowfork_V1_ExecInput>
  }

  /// The first message starts the command; the others are its input.
  private func feed(
    _ input: RPCAsyncSequence<Snowfork_V1_ExecInput, any Error>,
    _ started: AsyncThrowingStream<GuestCommand, any Error>.Continuation
  ) async throws {
    var command: GuestCommand?
    var relay: AsyncStream<Snowfork_V1_ExecInput>.Continuation?
    defer { relay?.finish() }
    do {
      for try await message in input {
        if let relay {
          relay.yield(message)
          continue
        }
        switch message.kind {
        case .start(let start):
          guard command == nil else { break }
          if let host = await service.agentHost(of: start.name) {
            let (rest, continuation) = AsyncStream.makeStream(of: Snowfork_V1_ExecInput.self)
            relay = continuation
            relay?.yield(message)
            started.finish(throwing: Elsewhere(host: host, input: rest))
            continue
          }
          let session = try await service.session(start.name)
          let running: GuestCommand
          do {
            running = try await session.run(start.arguments, environment: start.environment)
          } catch GuestError.refused(let errno, let message) where errno != 0 {
            throw NotStarted(
              status: errno == ENOENT ? 127 : 126,
              message:
                "sfctl: cannot run \(start.arguments.first ?? "a command") in \(start.name): \(message).\n")
          } catch let error as GuestError {
            throw ForkError(
              .failed,
              "cannot run \(start.arguments.first ?? "a command") in \(start.name): \(error). Check the command's name and the VM."
            )
          }
          command = running
          started.yield(running)
          started.finish()
        case .stdin(let bytes): try? await command?.write(Array(bytes))
        case .stdinClosed: command?.closeInput()
        case .signal(let number): command?.signal(number)
        case nil: break
        }
      }
      command?.closeInput()
      if command == nil, relay == nil {
        throw ForkError(.invalid, "cannot run a command: none was named. Name one after --.")
      }
    } catch {
      started.finish(throwing: error)
      command?.abandon()
    }
  }

  private func forward(_ call: Elsewhere, to output: RPCWriter<Snowfork_V1_ExecOutput>) async throws {
    let connection = try await service.cluster.reach(call.host)
    try await connection.snowfork.exec { writer in
      for await message in call.input { try await writer.write(message) }
    } onResponse: { response in
      for try await message in response.messages { try await output.write(message) }
    }
  }

  private func drain(_ command: GuestCommand, into output: RPCWriter<Snowfork_V1_ExecOutput>) async throws {
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
}
