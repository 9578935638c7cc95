using System.Text.Json.Nodes;

namespace PeftServer.Inference.Tests;

/// <summary>A model root of small models of every kind: the sample model, and reference models with words to speak.</summary>
public sealed class SmallModels : IDisposable
{
    private const int Vocabulary = 96;

    private static readonly string[] Words = ["[PAD]", "[SEP]", "[CLS]", "[UNK]", "where", "is", "it", "in", "rome", "today", "a"];

    public string Root { get; } = Directory.CreateTempSubdirectory("peftserver-models-").FullName;

    public SmallModels()
    {
        Copy(Path.Combine(AppContext.BaseDirectory, "models", "tiny-llama"), "tiny-llama");
        foreach (var name in (string[])["t5", "bart", "llama", "bert", "bert_cls", "bert_tok", "bert_qa", "bert_mlm"])
        {
            AddReference(name, name);
        }

        // One that was trained to write what stands between two texts: its tokenizer has tokens for it.
        AddReference("llama", "llama-fim");
        File.WriteAllText(Path.Combine(Root, "llama-fim", "tokenizer.json"), Tokenizer("<fim_prefix>", "<fim_suffix>", "<fim_middle>"));

        // BART's usual settings: an answer begins with one token and is cut off with another.
        AddReference("bart", "bart-forced");
        File.WriteAllText(Path.Combine(Root, "bart-forced", "generation_config.json"), """{"eos_token_id": 1, "forced_bos_token_id": 9, "forced_eos_token_id": 1}""");
    }

    public void Dispose() => Directory.Delete(Root, recursive: true);

    private void AddReference(string reference, string name)
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (!File.Exists(Path.Combine(folder.FullName, "PeftServer.sln")))
        {
            folder = folder.Parent ?? throw new DirectoryNotFoundException("PeftServer.sln is not above the tests.");
        }

        Copy(Path.Combine(folder.FullName, "tests", "Goldens", "models", reference), name);
        File.WriteAllText(Path.Combine(Root, name, "tokenizer.json"), Tokenizer());
    }

    private void Copy(string from, string name)
    {
        Directory.CreateDirectory(Path.Combine(Root, name));
        foreach (var file in Directory.GetFiles(from))
        {
            File.Copy(file, Path.Combine(Root, name, Path.GetFileName(file)), overwrite: true);
        }
    }

    /// <summary>
    /// Words by themselves, a token before and one after each text; as many as the reference models know. The last of them are
    /// <paramref name="special"/>.
    /// </summary>
    private static string Tokenizer(params string[] special)
    {
        string[] words = [.. Words, .. Enumerable.Range(Words.Length, Vocabulary - Words.Length - special.Length).Select(id => $"w{id}"), .. special];
        var vocabulary = new JsonObject(words.Select((word, id) => KeyValuePair.Create(word, (JsonNode?)JsonValue.Create(id))));
        var added = string.Concat(special.Select((word, i) =>
            $$""", {"id": {{Vocabulary - special.Length + i}}, "content": "{{word}}", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}"""));
        return $$$"""
            {
              "version": "1.0", "added_tokens": [
                {"id": 0, "content": "[PAD]", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
                {"id": 1, "content": "[SEP]", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
                {"id": 2, "content": "[CLS]", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}{{{added}}}
              ],
              "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"},
              "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
                         {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
                "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}, "[SEP]": {"id": "[SEP]", "ids": [1], "tokens": ["[SEP]"]}}
              },
              "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {{{vocabulary.ToJsonString()}}}}
            }
            """;
    }
}
