namespace PeftServer.EndToEnd.Tests;

/// <summary>Reference models with words to speak: a tokenizer of their size (96 tokens) that puts a token before and one after each text.</summary>
internal static class WordModels
{
    private const string Tokenizer = """
        {
          "version": "1.0", "added_tokens": [
            {"id": 0, "content": "[PAD]", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
            {"id": 1, "content": "[SEP]", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false},
            {"id": 2, "content": "[CLS]", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}
          ],
          "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"},
          "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}, "[SEP]": {"id": "[SEP]", "ids": [1], "tokens": ["[SEP]"]}}
          },
          "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[PAD]": 0, "[SEP]": 1, "[CLS]": 2, "[UNK]": 3, "where": 4, "is": 5, "it": 6, "in": 7, "rome": 8, "today": 9, "a": 10}}
        }
        """;

    /// <summary>A model root beside the sandbox's data: the sample model, and these reference models.</summary>
    public static string Create(Sandbox sandbox, params ReadOnlySpan<string> names)
    {
        var root = Directory.CreateDirectory(Path.Combine(Path.GetDirectoryName(sandbox.Data)!, "models")).FullName;
        Copy(Path.Combine(AppContext.BaseDirectory, "samples", "models", "tiny-llama"), Path.Combine(root, "tiny-llama"));
        foreach (var name in names)
        {
            Copy(Path.Combine(Repository(), "tests", "Goldens", "models", name), Path.Combine(root, name));
            File.WriteAllText(Path.Combine(root, name, "tokenizer.json"), Tokenizer);
        }

        return root;
    }

    private static void Copy(string from, string to)
    {
        Directory.CreateDirectory(to);
        foreach (var file in Directory.GetFiles(from))
        {
            File.Copy(file, Path.Combine(to, Path.GetFileName(file)));
        }
    }

    private static string Repository()
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (!File.Exists(Path.Combine(folder.FullName, "PeftServer.sln")))
        {
            folder = folder.Parent ?? throw new DirectoryNotFoundException("PeftServer.sln is not above the tests.");
        }

        return folder.FullName;
    }
}
