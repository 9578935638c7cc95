using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Tests.Tokenizers;

public sealed class StreamingDecoderTests
{
    private const string Text = "Voilà: 👩‍👩‍👧‍👦 日本語 naïve — done.  two  spaces\n";

    public static IEnumerable<TheoryDataRow<string>> Names =>
        Directory.EnumerateDirectories(Path.Combine(Samples.RepositoryRoot, "tests", "Goldens", "tokenizers")).Select(d => new TheoryDataRow<string>(Path.GetFileName(d)));

    [Theory, MemberData(nameof(Names))]
    public void Push_TokenByToken_AddsUpToTheDecoding(string name)
    {
        var tokenizer = Tokenizer.Load(Path.Combine(Samples.RepositoryRoot, "tests", "Goldens", "tokenizers", name));
        var ids = tokenizer.Encode(Text);
        var stream = tokenizer.CreateStreamingDecoder();

        var pieces = ids.Select(stream.Push).ToList();

        string.Concat([.. pieces, stream.Flush()]).ShouldBe(tokenizer.Decode(ids));
    }

    [Fact]
    public void Push_CharacterOverSeveralTokens_ComesOutWhole()
    {
        var ids = Samples.Tokenizer.Encode("🐋");
        ids.Length.ShouldBeGreaterThan(1);
        var stream = Samples.Tokenizer.CreateStreamingDecoder();

        ids.Select(stream.Push).ShouldBe([.. Enumerable.Repeat("", ids.Length - 1), "🐋"]);
        stream.Flush().ShouldBe("");
    }

    [Fact]
    public void Flush_HalfACharacter_IsTheReplacementCharacter()
    {
        var stream = Samples.Tokenizer.CreateStreamingDecoder();

        stream.Push(Samples.Tokenizer.Encode("🐋")[0]).ShouldBe("");
        stream.Flush().ShouldBe("\uFFFD");
    }

    [Fact]
    public void Push_BrokenBytesWithoutEnd_DoesNotWaitForever()
    {
        var half = Samples.Tokenizer.Encode("🐋")[0];
        var stream = Samples.Tokenizer.CreateStreamingDecoder();

        string.Concat(Enumerable.Range(0, 100).Select(_ => stream.Push(half))).Length.ShouldBeGreaterThan(50);
    }
}
