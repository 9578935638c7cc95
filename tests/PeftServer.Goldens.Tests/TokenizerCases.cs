using System.Text.Json;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Goldens.Tests;

/// <summary>Tokenizers against Hugging Face's library: ids, tokens, offsets, decoding, pairs, batches.</summary>
public sealed class TokenizerCases
{
    public static IEnumerable<TheoryDataRow<string, int>> Texts => Each("texts");

    public static IEnumerable<TheoryDataRow<string, int>> Pairs => Each("pairs");

    public static IEnumerable<TheoryDataRow<string>> Names => GoldenFolder.Cases("tokenizers", "cases.json").Select(n => new TheoryDataRow<string>(n));

    [Theory, MemberData(nameof(Texts))]
    public void Encode_Text_MatchesReference(string name, int index)
    {
        var expected = Cases(name).GetProperty("texts")[index];
        var text = expected.GetProperty("text").GetString()!;
        var tokenizer = Load(name);

        var encoding = tokenizer.EncodeWithOffsets(text);
        encoding.Ids.ShouldBe(Ints(expected, "ids"));
        encoding.Tokens.ShouldBe(expected.GetProperty("tokens").EnumerateArray().Select(t => t.GetString()!));
        encoding.Offsets.ShouldBe(expected.GetProperty("offsets").EnumerateArray().Select(o => (o[0].GetInt32(), o[1].GetInt32())));
        encoding.SpecialTokensMask.ShouldBe(Ints(expected, "special_mask").Select(i => i == 1));
        tokenizer.Encode(text).ShouldBe(Ints(expected, "ids"));
        tokenizer.Encode(text, addSpecialTokens: false).ShouldBe(Ints(expected, "ids_no_special"));
        tokenizer.Decode(Ints(expected, "ids_no_special"), skipSpecialTokens: false).ShouldBe(expected.GetProperty("decoded").GetString());
        tokenizer.Decode(Ints(expected, "ids"), skipSpecialTokens: true).ShouldBe(expected.GetProperty("decoded_skip").GetString());
    }

    [Theory, MemberData(nameof(Pairs))]
    public void Encode_Pair_MatchesReference(string name, int index)
    {
        var expected = Cases(name).GetProperty("pairs")[index];
        var encoding = Load(name).EncodeWithOffsets(expected.GetProperty("a").GetString()!, expected.GetProperty("b").GetString());
        encoding.Ids.ShouldBe(Ints(expected, "ids"));
        encoding.TypeIds.ShouldBe(Ints(expected, "type_ids"));
    }

    [Theory, MemberData(nameof(Names))]
    public void EncodeBatch_TruncatedAndPadded_MatchesReference(string name)
    {
        var expected = Cases(name).GetProperty("batch").EnumerateArray().ToList();
        var tokenizer = Load(name);

        var batch = tokenizer.EncodeBatch(
            [.. expected.Select(e => e.GetProperty("text").GetString()!)],
            truncation: new TruncationOptions { MaxLength = 8 },
            padding: new PaddingOptions { PadId = 0, PadToken = tokenizer.IdToToken(0)! });

        foreach (var (encoding, row) in batch.Zip(expected))
        {
            encoding.Ids.ShouldBe(Ints(row, "ids"));
            encoding.AttentionMask.ShouldBe(Ints(row, "mask").Select(i => i == 1));
        }
    }

    private static IEnumerable<TheoryDataRow<string, int>> Each(string list) =>
        from name in GoldenFolder.Cases("tokenizers", "cases.json")
        from index in Enumerable.Range(0, Cases(name).GetProperty(list).GetArrayLength())
        select new TheoryDataRow<string, int>(name, index);

    private static JsonElement Cases(string name) =>
        JsonSerializer.Deserialize<JsonElement>(File.ReadAllBytes(GoldenFolder.PathOf("tokenizers", name, "cases.json")));

    private static Tokenizer Load(string name) => Tokenizer.Load(GoldenFolder.PathOf("tokenizers", name));

    private static int[] Ints(JsonElement parent, string name) => [.. parent.GetProperty(name).EnumerateArray().Select(i => i.GetInt32())];
}
