import CLibnftables
import Foundation

/// nftables of one network namespace. Not for two callers at a time: `HostNetwork` has the lock.
final class NFTables: @unchecked Sendable {
  private let context: OpaquePointer

  /// Belongs to the calling thread's namespace, wherever it is used later.
  init() throws(NetworkError) {
    guard let context = nft_ctx_new(UInt32(NFT_CTX_DEFAULT)) else {
      throw NetworkError(
        .unsupported, "open nftables", cause: "libnftables can not be used here",
        remedy: "Run as root, on a kernel with nftables.")
    }
    self.context = context
    nft_ctx_buffer_output(context)
    nft_ctx_buffer_error(context)
    nft_ctx_output_set_flags(context, UInt32(NFT_CTX_OUTPUT_JSON) | UInt32(NFT_CTX_OUTPUT_NUMERIC_ALL))
  }

  deinit { nft_ctx_free(context) }

  /// Runs commands as of `nft -f`: all of them, or on failure none.
  func run(_ commands: String, _ operation: @autoclosure () -> String) throws(NetworkError) {
    guard nft_run_cmd_from_buffer(context, commands) != 0 else { return }
    throw failure(operation())
  }

  /// What a `list` command shows, each thing with its kind: `set`, `table` and so on. Nil: there is no such thing.
  func list(_ command: String, _ operation: @autoclosure () -> String) throws(NetworkError) -> [[String:
    Any]]?
  {
    guard nft_run_cmd_from_buffer(context, command) == 0 else {
      let failure = failure(operation())
      if failure.cause.contains("No such file or directory") { return nil }
      throw failure
    }
    let text = nft_ctx_get_output_buffer(context).map { String(cString: $0) } ?? ""
    let document = try? JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any]
    guard let things = document?["nftables"] as? [[String: Any]] else {
      throw NetworkError(.failed, operation(), cause: "nftables answers what is no list: \(text.prefix(200))")
    }
    return things
  }

  /// The elements of a set or map of strings; nil: there is no such set.
  func elements(_ set: String, _ operation: @autoclosure () -> String) throws(NetworkError) -> [[String]]? {
    guard let things = try list("list set \(set)", operation()) else { return nil }
    let elements = things.compactMap { ($0["set"] as? [String: Any])?["elem"] as? [Any] }.joined()
    return elements.compactMap { element in
      if let text = element as? String { return [text] }
      return ((element as? [String: Any])?["concat"] as? [Any])?.map { "\($0)" }
    }
  }

  private func failure(_ operation: String) -> NetworkError {
    let text = nft_ctx_get_error_buffer(context).map { String(cString: $0) } ?? ""
    let lines = text.split(separator: "\n")
    let cause = lines.first { $0.contains("Error:") }.map { String($0.drop { $0 != "E" }) } ?? "no reason"
    return NetworkError(
      cause.contains("Operation not permitted") ? .unsupported : .failed, operation,
      cause: "nftables answers: \(cause)",
      remedy: cause.contains("Operation not permitted") ? "Run as root." : "")
  }
}
