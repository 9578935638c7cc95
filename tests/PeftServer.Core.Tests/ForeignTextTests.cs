using System.Text;
using System.Text.Json;

namespace PeftServer.Core.Tests;

public sealed class ForeignTextTests
{
    [Theory]
    [InlineData("plain", "plain")]
    [InlineData("a\0b", "a\uFFFDb")]
    [InlineData("whole \uD83D\uDE00", "whole \uD83D\uDE00")]
    [InlineData(null, "")]
    public void Clean_Text_IsWhatPostgresTakes(string? text, string expected) => ForeignText.Clean(text).ShouldBe(expected);

    // An attribute can not hold half a surrogate.
    [Fact]
    public void Clean_HalfASurrogate_IsReplaced()
    {
        ForeignText.Clean("half \uD83D").ShouldBe("half \uFFFD");
        ForeignText.Clean("other half \uDE00!").ShouldBe("other half \uFFFD!");
    }

    [Fact]
    public void Clean_CutThroughAPair_LeavesNoHalf()
    {
        var clean = ForeignText.Clean("ab\uD83D\uDE00cd", maxLength: 4);

        clean.ShouldBe("ab\uFFFD…");
    }

    [Fact]
    public void CleanTail_LongLog_KeepsTheEnd() => ForeignText.CleanTail("0123456789", 4).ShouldBe("…789");

    [Fact]
    public void CleanTail_BytesThatAreNoText_BecomeText() =>
        ForeignText.CleanTail([0x61, 0x00, 0xFF, 0xFE, 0xED, 0xA0, 0x80, 0x62]).ShouldSatisfyAllConditions(
            text => text.ShouldStartWith("a\uFFFD"),
            text => text.ShouldEndWith("b"),
            text => Should.NotThrow(() => new UTF8Encoding(false, throwOnInvalidBytes: true).GetBytes(text)));

    [Fact]
    public void Clean_Json_HoldsWhatJsonbHolds()
    {
        using var document = JsonDocument.Parse("""{"loss": 1.5, "step": 9007199254740993, "huge": 1e999, "list": [1, 1e999, "a\u0000"], "\u0000k": null, "ok": true}""");

        ForeignText.Clean(document.RootElement).GetRawText()
            .ShouldBe("{\"loss\":1.5,\"step\":9007199254740993,\"list\":[1,\"a\uFFFD\"],\"\uFFFDk\":null,\"ok\":true}");
    }

    [Fact]
    public void Clean_JsonWithAHalfSurrogate_IsCleaned()
    {
        using var document = JsonDocument.Parse("""{"text": "\ud800", "\udc00": 1}""");

        ForeignText.Clean(document.RootElement).GetRawText().ShouldBe("{\"text\":\"\uFFFD\",\"\uFFFD\":1}");
    }
}
