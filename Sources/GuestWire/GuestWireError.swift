/// Why a message could not be written into, or read out of, a frame's body.
public enum GuestWireError: Error, Equatable, Sendable, CustomStringConvertible {
  case unknownType(UInt8)
  /// The message goes only the other way.
  case wrongDirection(MessageType)
  case truncated(field: String)
  case trailingBytes(Int)
  case tooLong(field: String, length: Int, limit: Int)
  case wrongLength(field: String, length: Int, expected: Int)
  case notUTF8(field: String)
  case unknownValue(field: String, value: UInt64)

  public var description: String {
    switch self {
    case .unknownType(let type): "message type \(type) is not known"
    case .wrongDirection(let type): "message \(type) goes only the other way"
    case .truncated(let field): "the message ends before its field \(field) does"
    case .trailingBytes(let count): "\(count) bytes follow the message's last field"
    case .tooLong(let field, let length, let limit): "field \(field) has length \(length), over \(limit)"
    case .wrongLength(let field, let length, let expected):
      "field \(field) has length \(length), not \(expected)"
    case .notUTF8(let field): "field \(field) is not UTF-8"
    case .unknownValue(let field, let value): "field \(field) cannot be \(value)"
    }
  }
}
