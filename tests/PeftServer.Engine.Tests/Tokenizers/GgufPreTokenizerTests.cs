using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Tokenizers;

namespace PeftServer.Engine.Tests.Tokenizers;

/// <summary>How the names in <c>tokenizer.ggml.pre</c> cut text.</summary>
public sealed class GgufPreTokenizerTests
{
    [Theory]
    [InlineData("gpt-2", "It's 2024  now", "It|'s| 2024| | now")]
    [InlineData("llama-bpe", "It'S 12345\n\n ok", "It|'S| |123|45|\n\n| ok")]
    [InlineData("qwen2", "a 123", "a| |1|2|3")]
    [InlineData("smollm", "a 123", "a| |1|2|3")]
    [InlineData("falcon", "a, b 12345", "a|,| b| |123|45")]
    [InlineData("deepseek-llm", "Hi there 2024!\n中文x", "Hi| there| |2024|!|\n|中文|x")]
    [InlineData("deepseek-coder", "f(x) 42", "f|(|x|)| |4|2")]
    [InlineData("deepseek-v3", "Hi 12345 中文!", "Hi| |123|45| |中文|!")]
    [InlineData("tekken", "helloWorld 12", "hello|World| |1|2")]
    [InlineData("gpt-4o", "HTTPServer's 1234", "HTTPServer's| |123|4")]
    [InlineData("tiny_aya", "n 1234567", "n| |1|234|567")]
    [InlineData("bloom", "Hello, world", "Hello|,| world")]
    [InlineData("viking", "v12 x", "v|1|2| x")]
    [InlineData("seed-coder", "a!\n b1", "a|!|\n| b|1")]
    [InlineData("qwen35", "e\u0301t\u00e9 1", "e\u0301t\u00e9| |1")]
    [InlineData("minicpm5", "x 12345", "x| |123|45")]
    [InlineData("chameleon", "a  b1", "a|  |b|1")]
    [InlineData("exaone-moe", "a b 12", "a b| |1|2")]
    public void Cut_OfAName_IsThePatternsOfItsTokenizer(string name, string text, string parts) => string.Join("|", Cut(name, text)).ShouldBe(parts);

    /// <summary>Every name that llama.cpp knows and that stands for expressions of a byte-level BPE.</summary>
    [Theory]
    [InlineData("gpt2 phi-2 mpt olmo jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum modern-bert jina-es jina-de jina-v2-es jina-v2-de")]
    [InlineData("llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano dbrx smaug-bpe glm4 chatglm-bpe")]
    [InlineData("deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2 laguna")]
    [InlineData("starcoder refact command-r codeshell exaone minerva-7b mellum2 hunyuan-dense joyai-llm youtu")]
    [InlineData("llama4 kanana2 talkie minimax-m2 granite-embed-multi-97m cohere2moe bailingmoe bailingmoe2 llada-moe poro-chat gpt3-finnish")]
    public void Cut_OfEveryKnownName_LosesNothing(string names)
    {
        const string Text = "It's naïve café, don't!  \n\tx=3.14159; 日本語 한국어 🐋 ÀÉ\u0301 CamelCase 1234567 <|x|> ";
        foreach (var name in names.Split(' '))
        {
            string.Concat(Cut(name, Text)).ShouldBe(Text, name);
        }
    }

    [Fact]
    public void Cut_OfNobodysName_IsRefusedWithTheRemedy() =>
        Should.Throw<TokenizerException>(() => GgufPreTokenizer.Of("default")).Message.ShouldContain("tokenizer.json");

    /// <summary>The parts that a text is cut into, by a vocabulary of bytes alone.</summary>
    private static IEnumerable<string> Cut(string name, string text)
    {
        using var document = JsonDocument.Parse(new JsonObject
        {
            ["pre_tokenizer"] = GgufPreTokenizer.Of(name).ToJson(),
            ["model"] = new JsonObject { ["type"] = "WordLevel", ["vocab"] = new JsonObject { ["?"] = 0 }, ["unk_token"] = "?" },
        }.ToJsonString());
        var tokenizer = new Tokenizer(TokenizerJson.Read(document.RootElement), new SpecialTokens(), null);
        var encoding = tokenizer.EncodeWithOffsets(text, addSpecialTokens: false);
        var runes = text.EnumerateRunes().ToArray(); // offsets count code points
        return encoding.Offsets.Select(offset => string.Concat(runes[offset.Start..offset.End].Select(rune => rune.ToString())));
    }
}
