import CLinux
import Glibc

/// A thread that shows its name in `ps -L` and in a debugger, outside of Swift's cooperative pool.
public struct NamedThread: @unchecked Sendable {
  private let handle: pthread_t

  /// Starts `body` on a new thread. Of `name` the kernel keeps the first 15 bytes.
  /// The thread must be joined or detached.
  public init(_ name: String, _ body: @escaping @Sendable () -> Void) throws(SystemError) {
    let box = Unmanaged.passRetained(Body(name: name, run: body))
    var handle = pthread_t()
    let code = pthread_create(
      &handle, nil,
      { argument in
        let body = Unmanaged<Body>.fromOpaque(argument!).takeRetainedValue()
        _ = clinux_set_thread_name(body.name)
        body.run()
        return nil
      }, box.toOpaque())
    if code != 0 {
      box.release()
      throw SystemError("pthread_create", subject: name, errno: code)
    }
    self.handle = handle
  }

  /// Waits for its end. Call once, from another thread.
  public func join() { pthread_join(handle, nil) }
  /// It ends by itself, unwatched.
  public func detach() { pthread_detach(handle) }

  private final class Body {
    let name: String
    let run: @Sendable () -> Void
    init(name: String, run: @escaping @Sendable () -> Void) {
      self.name = name
      self.run = run
    }
  }
}
