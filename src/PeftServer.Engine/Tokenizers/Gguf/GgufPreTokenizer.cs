using System.Text.Json.Nodes;

namespace PeftServer.Engine.Tokenizers;

/// <summary>
/// How a byte-level BPE cuts text before its merges, by the name in <c>tokenizer.ggml.pre</c>: llama.cpp's names for the patterns of
/// the tokenizers that files were converted from.
/// </summary>
/// <param name="Pattern">The regular expression of the parts; null: GPT-2's.</param>
/// <param name="SingleDigits">Every digit is cut off first.</param>
/// <param name="IgnoresMerges">A part that is a token as a whole stays one.</param>
/// <param name="AddsBos">Texts begin with the begin token where the file does not say.</param>
/// <param name="IsNormalized">Text is brought into Unicode's form C first.</param>
internal sealed record GgufPreTokenizer(string? Pattern = null, bool SingleDigits = false, bool IgnoresMerges = false, bool AddsBos = false, bool IsNormalized = false)
{
    private const string Llama3 =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    private const string Qwen2 =
        @"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    /// <summary>What a name stands for. Throws <see cref="TokenizerException"/> for one that is not known: another cut would give other tokens.</summary>
    public static GgufPreTokenizer Of(string name) => name switch
    {
        "gpt-2" or "gpt2" or "phi-2" or "mpt" or "olmo" or "jais" or "trillion" => new(),
        "llama3" or "llama-v3" or "llama-bpe" or "falcon3" or "dbrx" or "smaug-bpe" => new(Llama3, IgnoresMerges: name is not ("dbrx" or "smaug-bpe"), AddsBos: name is not ("dbrx" or "smaug-bpe")),
        "qwen2" or "stablelm2" or "deepseek-r1-qwen" => new(Qwen2, IsNormalized: name is not "stablelm2"),
        "smollm" or "starcoder" or "refact" or "command-r" or "codeshell" or "granite-docling" => new(SingleDigits: true),
        _ => throw new TokenizerException(
            $"tokenizer.ggml.pre '{name}' is not supported: how it cuts text is not known. Put the original model's tokenizer.json beside the GGUF file."),
    };

    /// <summary>The same as tokenizer.json has it.</summary>
    public JsonObject ToJson()
    {
        var parts = new JsonArray();
        if (SingleDigits)
        {
            parts.Add(new JsonObject { ["type"] = "Digits", ["individual_digits"] = true });
        }

        if (Pattern is not null)
        {
            parts.Add(new JsonObject { ["type"] = "Split", ["pattern"] = new JsonObject { ["Regex"] = Pattern }, ["behavior"] = "Isolated", ["invert"] = false });
        }

        parts.Add(new JsonObject { ["type"] = "ByteLevel", ["add_prefix_space"] = false, ["trim_offsets"] = true, ["use_regex"] = Pattern is null });
        return new JsonObject { ["type"] = "Sequence", ["pretokenizers"] = parts };
    }
}
