using System.Buffers.Binary;
using System.Text;
using System.Text.Json;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Tests.Tokenizers;

/// <summary>Folders without tokenizer.json give what the same tokenizer gives with one.</summary>
public sealed class TokenizerFolderTests : IDisposable
{
    private static readonly string[] Texts = ["Hello world", "It's we'll naïve café", "1234 <x> [MASK] and", "日本語 Ångström\nline", "the quick brown fox"];

    private readonly string _folder = Directory.CreateTempSubdirectory("peftserver-tokenizer-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Theory]
    [InlineData("gpt2", "GPT2Tokenizer")]
    [InlineData("qwen2", "Qwen2TokenizerFast")]
    [InlineData("roberta", "RobertaTokenizer")]
    public void Load_VocabularyAndMerges_GivesTheSameIds(string name, string tokenizerClass)
    {
        var model = Reference(name).GetProperty("model");
        Write("vocab.json", model.GetProperty("vocab").GetRawText());
        Write("merges.txt", "#version: 0.2\n" + string.Concat(model.GetProperty("merges").EnumerateArray().Select(m => $"{m[0].GetString()} {m[1].GetString()}\n")));
        Write("tokenizer_config.json", JsonSerializer.Serialize(new { tokenizer_class = tokenizerClass, add_prefix_space = name == "roberta" }));

        ShouldAgree(Tokenizer.Load(_folder), name);
    }

    [Theory]
    [InlineData("bert_uncased", true)]
    [InlineData("bert_cased", false)]
    public void Load_WordPieceVocabulary_GivesTheSameIds(string name, bool lowercase)
    {
        var tokens = Reference(name).GetProperty("model").GetProperty("vocab").EnumerateObject().OrderBy(t => t.Value.GetInt32()).Select(t => t.Name);
        Write("vocab.txt", string.Concat(tokens.Select(t => t + "\n")));
        Write("tokenizer_config.json", JsonSerializer.Serialize(new { tokenizer_class = "BertTokenizer", do_lower_case = lowercase }));

        ShouldAgree(Tokenizer.Load(_folder), name);
    }

    [Fact]
    public void Load_SentencePieceUnigram_GivesTheSameIds()
    {
        var reference = Reference("t5_spm");
        var pieces = reference.GetProperty("model").GetProperty("vocab").EnumerateArray()
            .Where(p => !p[0].GetString()!.StartsWith("<extra_id_", StringComparison.Ordinal)).ToList();
        var file = new List<byte>();
        for (var i = 0; i < pieces.Count; i++)
        {
            file.AddRange(Field(1, [.. Field(1, Encoding.UTF8.GetBytes(pieces[i][0].GetString()!)), .. Float(2, pieces[i][1].GetSingle()), .. Number(3, i switch { 2 => 2, < 2 => 3, _ => 1 })]));
        }

        var charsmap = reference.GetProperty("normalizer").GetProperty("normalizers")[0].GetProperty("precompiled_charsmap").GetBytesFromBase64();
        file.AddRange(Field(2, [.. Number(3, 1)]));
        file.AddRange(Field(3, [.. Field(2, charsmap)]));
        File.WriteAllBytes(Path.Combine(_folder, "spiece.model"), [.. file]);
        Write("tokenizer_config.json", """{"tokenizer_class": "T5Tokenizer", "extra_ids": 10, "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}""");

        var tokenizer = Tokenizer.Load(_folder);
        ShouldAgree(tokenizer, "t5_spm");
        (tokenizer.EosTokenId, tokenizer.PadTokenId).ShouldBe((1, 0));
        tokenizer.Encode("<extra_id_3>", addSpecialTokens: false).ShouldHaveSingleItem().ShouldBe(Tokenizer.Load(ReferenceFolder("t5_spm")).TokenToId("<extra_id_3>")!.Value);
    }

    [Fact]
    public void Load_SentencePieceBpe_MergesByScore()
    {
        (string Piece, float Score, int Type)[] pieces =
        [
            ("<unk>", 0, 2), ("<s>", 0, 3), ("</s>", 0, 3), ("<0xC3>", 0, 6), ("<0xA9>", 0, 6), ("ab", -1, 1), ("\u2581ab", -2, 1), ("bc", -3, 1), ("\u2581", -4, 1), ("a", -5, 1), ("b", -6, 1), ("c", -7, 1),
        ];
        byte[] file =
        [
            .. pieces.SelectMany(p => Field(1, [.. Field(1, Encoding.UTF8.GetBytes(p.Piece)), .. Float(2, p.Score), .. Number(3, p.Type)])),
            .. Field(2, [.. Number(3, 2), .. Number(35, 1)]),
        ];
        File.WriteAllBytes(Path.Combine(_folder, "tokenizer.model"), file);
        Write("tokenizer_config.json", """{"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>"}""");

        var tokenizer = Tokenizer.Load(_folder);

        tokenizer.Encode("abc é").ShouldBe([1, 6, 11, 8, 3, 4]);
        tokenizer.Decode([1, 6, 11, 8, 3, 4]).ShouldBe("abc é");
    }

    [Fact]
    public void Load_NothingThere_SaysWhatIsMissing() =>
        Should.Throw<TokenizerException>(() => Tokenizer.Load(_folder)).Message.ShouldContain("tokenizer.json");

    private static void ShouldAgree(Tokenizer tokenizer, string name)
    {
        var expected = Tokenizer.Load(ReferenceFolder(name));
        foreach (var text in Texts)
        {
            tokenizer.Encode(text).ShouldBe(expected.Encode(text), text);
            tokenizer.Decode(expected.Encode(text)).ShouldBe(expected.Decode(expected.Encode(text)));
        }
    }

    private static string ReferenceFolder(string name) => Path.Combine(Samples.RepositoryRoot, "tests", "Goldens", "tokenizers", name);

    private static JsonElement Reference(string name) => JsonSerializer.Deserialize<JsonElement>(File.ReadAllBytes(Path.Combine(ReferenceFolder(name), "tokenizer.json")));

    private static byte[] Field(int number, byte[] bytes) => [.. Varint((uint)((number << 3) | 2)), .. Varint((uint)bytes.Length), .. bytes];

    private static byte[] Number(int number, int value) => [.. Varint((uint)(number << 3)), .. Varint((uint)value)];

    private static byte[] Float(int number, float value)
    {
        var bytes = new byte[4];
        BinaryPrimitives.WriteSingleLittleEndian(bytes, value);
        return [.. Varint((uint)((number << 3) | 5)), .. bytes];
    }

    private static byte[] Varint(uint value)
    {
        var bytes = new List<byte>();
        for (; value >= 0x80; value >>= 7)
        {
            bytes.Add((byte)(value | 0x80));
        }

        bytes.Add((byte)value);
        return [.. bytes];
    }

    private void Write(string name, string text) => File.WriteAllText(Path.Combine(_folder, name), text);
}
