import Mcdist
import Testing
