using System.Text.Json.Nodes;

namespace PeftServer.Engine.Tokenizers;

/// <summary>
/// How a byte-level BPE cuts text before its merges, by the name in <c>tokenizer.ggml.pre</c>: llama.cpp's names for the patterns of
/// the tokenizers that files were converted from.
/// </summary>
/// <param name="Patterns">The regular expressions that cut one after the other; what none matches is a part too.</param>
/// <param name="IgnoresMerges">A part that is a token as a whole stays one.</param>
/// <param name="AddsBos">Texts begin with the begin token where the file does not say.</param>
/// <param name="IsNormalized">Text is brought into Unicode's form C first.</param>
internal sealed record GgufPreTokenizer(IReadOnlyList<string> Patterns, bool IgnoresMerges = false, bool AddsBos = false, bool IsNormalized = false)
{
    private const string Gpt2 = @"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    private const string Contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
    private const string Word = @"[^\r\n\p{L}\p{N}]?\p{L}+";
    private const string Rest = @" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    private const string Digit = @"\p{N}";
    private const string Digits3 = @"\p{N}{1,3}";
    private const string Llama3 = $"{Contractions}|{Word}|{Digits3}|{Rest}";
    private const string Qwen2 = $"{Contractions}|{Word}|{Digit}|{Rest}";

    // Words in which capitals come first and small letters last: camelCase falls apart.
    private const string Capitals = @"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]";
    private const string Smalls = @"[\p{Ll}\p{Lm}\p{Lo}\p{M}]";
    private const string CasedRest = @" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    private const string Gpt4O = $"{Capitals}*{Smalls}+{Contractions}?|{Capitals}+{Smalls}*{Contractions}?|{Digits3}|{CasedRest}";

    private const string DeepSeekWord =
        @"[!""#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    private const string Han = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+";
    private const string DeepSeekHan = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+";
    private const string Bloom = @" ?[^(\s|.,!?…。，、।۔،)]+";

    /// <summary>
    /// What a name stands for. Throws <see cref="TokenizerException"/> for one that is not known, and for "default", which llama.cpp takes
    /// although it is nobody's cut: another cut would give other tokens than the model was trained on.
    /// </summary>
    public static GgufPreTokenizer Of(string name) => name switch
    {
        "gpt-2" or "gpt2" or "phi-2" or "mpt" or "olmo" or "jais" or "trillion" or "granite-docling" or "exaone4" or "gigachat" or "a.x-4.0" or "mellum" or "modern-bert"
            or "jina-es" or "jina-de" or "jina-v2-es" or "jina-v2-de" => new([Gpt2]),
        "llama3" or "llama-v3" or "llama-bpe" or "falcon3" or "falcon-h1" or "pixtral" or "midm-2.0" or "lfm2" or "jina-v5-nano" => new([Llama3], IgnoresMerges: true, AddsBos: true),
        "dbrx" or "smaug-bpe" or "glm4" or "chatglm-bpe" => new([Llama3]),
        "qwen2" or "deepseek-r1-qwen" or "kormo" or "f2llmv2" or "megrez" => new([Qwen2], IsNormalized: true),
        "stablelm2" or "hunyuan" or "solar-open" or "grok-2" => new([Qwen2]),
        "qwen35" => new([$@"{Contractions}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|{Digit}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"], IsNormalized: true),
        "laguna" => new([@"[^\n]+|[\n]+", Qwen2]),
        "minicpm5" => new([Digits3, $@"{Contractions}|{Word}|\p{{N}}+|{Rest}"], IgnoresMerges: true),
        "smollm" or "starcoder" or "refact" or "command-r" or "codeshell" or "exaone" or "minerva-7b" or "mellum2" => new([Digit, Gpt2]),
        "falcon" => new([@"[\p{P}\$\+<=>\^~\|`]+", Gpt2, "[0-9][0-9][0-9]"]),
        "deepseek-llm" => new(["[\r\n]", DeepSeekLetters, "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+", @"\s+$", DeepSeekHan, @"\p{N}+"]),
        "deepseek-coder" => new(["[\r\n]", @"\s?\p{L}+", @"\s?\p{P}+", DeepSeekHan, Digit]),
        "deepseek-v3" or "hunyuan-dense" or "joyai-llm" => new([Digits3, Han, DeepSeekWord]),
        "youtu" => new(
            [
                "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + Han,
                $"{Capitals}*{Smalls}+{Contractions}?|{Capitals}+{Smalls}*{Contractions}?|{Digit}|{CasedRest}",
            ],
            IgnoresMerges: true),
        "tekken" => new([$"{Capitals}*{Smalls}+|{Capitals}+{Smalls}*|{Digit}|{CasedRest}"], IgnoresMerges: true, AddsBos: true),
        "gpt-4o" or "llama4" or "kanana2" or "talkie" or "minimax-m2" => new([Gpt4O]),
        "granite-embed-multi-97m" => new([Gpt4O], IgnoresMerges: true),
        "tiny_aya" or "cohere2moe" => new([@"\d{1,3}(?=(?:\d{3})*\b)", Gpt4O]),
        "bailingmoe" or "bailingmoe2" or "llada-moe" => new(
            [@"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"]),
        "seed-coder" => new([$@"{Contractions}|{Word}|{Digit}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"]),
        "exaone-moe" => new([$@"{Contractions}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|{Digit}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"]),
        "chameleon" => new(
            ["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", "([\t\n]|    |  )", Digit, @"[\p{P}!-/:-@\[-`{-~]", Gpt2], AddsBos: true),
        "poro-chat" or "bloom" or "gpt3-finnish" => new([Bloom]),
        "viking" => new([Bloom, Digit]),
        _ => throw new TokenizerException(
            $"tokenizer.ggml.pre '{name}' is not supported: how it cuts text is not known. Put the original model's tokenizer.json beside the GGUF file."),
    };

    /// <summary>Letters that are upper, lower or title case, as DeepSeek's tokenizer lists them.</summary>
    private const string DeepSeekLetters =
        "\\s?["
        + "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386"
        + "\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba"
        + "\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
        + "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc"
        + "\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184"
        + "\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
        + "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
        + "\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
        + "]+";

    /// <summary>The same as tokenizer.json has it.</summary>
    public JsonObject ToJson()
    {
        var isGpt2Last = Patterns[^1] == Gpt2; // which the byte level knows by itself
        var parts = new JsonArray([.. Patterns.Take(Patterns.Count - (isGpt2Last ? 1 : 0)).Select(JsonNode (pattern) =>
            new JsonObject { ["type"] = "Split", ["pattern"] = new JsonObject { ["Regex"] = pattern }, ["behavior"] = "Isolated", ["invert"] = false })]);
        parts.Add(new JsonObject { ["type"] = "ByteLevel", ["add_prefix_space"] = false, ["trim_offsets"] = true, ["use_regex"] = isGpt2Last });
        return new JsonObject { ["type"] = "Sequence", ["pretokenizers"] = parts };
    }
}
