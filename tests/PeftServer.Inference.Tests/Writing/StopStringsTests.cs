using PeftServer.Inference.Writing;

namespace PeftServer.Inference.Tests.Writing;

public sealed class StopStringsTests
{
    [Theory]
    [InlineData(new[] { "ab", "cS", "TO", "P!" }, "abc", true)] // over the borders of pieces
    [InlineData(new[] { "ab", "ST", "O" }, "abSTO", false)] // what only began is text after all
    [InlineData(new[] { "xENDySTOP" }, "x", true)] // the first of several
    [InlineData(new[] { "SSTOP" }, "S", true)] // a beginning within a beginning
    [InlineData(new[] { "plain" }, "plain", false)]
    public void Push_InPieces_ShowsWhatComesBeforeTheFirstStop(string[] pieces, string expected, bool stopped)
    {
        var stops = new StopStrings(["STOP", "END"]);

        var shown = string.Concat(pieces.Select(stops.Push)) + stops.Flush();

        shown.ShouldBe(expected);
        stops.HasStopped.ShouldBe(stopped);
    }

    [Fact]
    public void Push_BeginningOfAStop_IsHeldBack()
    {
        var stops = new StopStrings(["STOP"]);

        stops.Push("textST").ShouldBe("text");
        stops.Push("AR").ShouldBe("STAR");
    }
}
