import CZstd
import Crypto

/// A device state on its way: what differs from the one before, by Zstandard with that one as its prefix; whole if
/// there is none or it would be smaller.
///
///     0      1                9                       41
///     | kind | length, bytes  | SHA-256 of the state   | Zstandard |       kind: 0 whole, 1 on the base
public enum StateDelta {
  private static let headBytes = 41
  private static let level: CInt = 3
  /// Of a device state, bytes. QEMU's is 350 KB for a small VM.
  public static let stateBytesMax = 64 << 20

  public static func encode(_ state: [UInt8], on base: [UInt8]?) -> [UInt8] {
    let whole = compress(state, prefix: nil)
    var (kind, body) = (UInt8(0), whole)
    if let base {
      let delta = compress(state, prefix: base)
      if delta.count < whole.count { (kind, body) = (1, delta) }
    }
    var bytes: [UInt8] = [kind]
    bytes.append(little: UInt64(state.count))
    bytes += Array(SHA256.hash(data: state))
    return bytes + body
  }

  public static func decode(_ bytes: [UInt8], on base: [UInt8]?) throws(CheckpointError) -> [UInt8] {
    guard bytes.count >= headBytes, bytes[0] <= 1 else { throw .sizes("its device state has no head") }
    let length = bytes.little(at: 1, as: UInt64.self)
    guard length <= stateBytesMax else { throw .sizes("its device state has \(length) bytes") }
    if bytes[0] == 1, base == nil { throw .sizes("its device state is a change of one that is not here") }
    var state = [UInt8](repeating: 0, count: Int(length))
    guard expand(bytes[headBytes...], prefix: bytes[0] == 1 ? base : nil, into: &state) else {
      throw .sizes("its device state does not expand")
    }
    guard Array(SHA256.hash(data: state)) == Array(bytes[9..<headBytes]) else {
      throw .digest("its device state")
    }
    return state
  }

  private static func compress(_ state: [UInt8], prefix: [UInt8]?) -> [UInt8] {
    guard let context = ZSTD_createCCtx() else { preconditionFailure("no memory to compress with") }
    defer { ZSTD_freeCCtx(context) }
    ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, level)
    ZSTD_CCtx_setParameter(context, ZSTD_c_contentSizeFlag, 1)
    if let prefix {
      // The window must reach from the state's end to the prefix's begin.
      let reach = max(1, prefix.count + state.count)
      ZSTD_CCtx_setParameter(context, ZSTD_c_windowLog, windowLog(reach))
      ZSTD_CCtx_setParameter(context, ZSTD_c_enableLongDistanceMatching, 1)
    }
    var target = [UInt8](repeating: 0, count: ZSTD_compressBound(state.count))
    let count = target.withUnsafeMutableBytes { target in
      state.withUnsafeBytes { state in
        withPrefix(prefix) { prefix in
          if let prefix { ZSTD_CCtx_refPrefix(context, prefix.baseAddress, prefix.count) }
          return ZSTD_compress2(context, target.baseAddress, target.count, state.baseAddress, state.count)
        }
      }
    }
    precondition(ZSTD_isError(count) == 0, "Zstandard has room for what it makes")
    return Array(target.prefix(count))
  }

  private static func expand(_ body: ArraySlice<UInt8>, prefix: [UInt8]?, into state: inout [UInt8]) -> Bool {
    guard let context = ZSTD_createDCtx() else { preconditionFailure("no memory to expand with") }
    defer { ZSTD_freeDCtx(context) }
    ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, windowLog(2 * stateBytesMax))
    let length = state.count
    return state.withUnsafeMutableBytes { target in
      body.withUnsafeBytes { body in
        withPrefix(prefix) { prefix in
          if let prefix { ZSTD_DCtx_refPrefix(context, prefix.baseAddress, prefix.count) }
          return ZSTD_decompressDCtx(context, target.baseAddress, length, body.baseAddress, body.count)
        }
      }
    } == length
  }

  private static func withPrefix<T>(_ prefix: [UInt8]?, _ body: (UnsafeRawBufferPointer?) -> T) -> T {
    guard let prefix else { return body(nil) }
    return prefix.withUnsafeBytes { body($0) }
  }

  private static func windowLog(_ bytes: Int) -> CInt {
    CInt(max(10, Int.bitWidth - (bytes - 1).leadingZeroBitCount))
  }
}
