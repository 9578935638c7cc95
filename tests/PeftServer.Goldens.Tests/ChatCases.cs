using System.Text.Json;
using PeftServer.Engine.Tokenizers.ChatTemplates;

namespace PeftServer.Goldens.Tests;

/// <summary>Chat templates against what transformers renders, or refuses to.</summary>
public sealed class ChatCases
{
    private static readonly JsonElement Cases = JsonSerializer.Deserialize<JsonElement>(File.ReadAllBytes(GoldenFolder.PathOf("chat", "cases.json")));

    private static readonly Dictionary<string, string> Variables = new()
    {
        ["bos_token"] = Cases.GetProperty("bos_token").GetString()!,
        ["eos_token"] = Cases.GetProperty("eos_token").GetString()!,
    };

    public static IEnumerable<TheoryDataRow<string, string, bool>> Renderings =>
        Cases.GetProperty("renderings").EnumerateArray().Select(r => new TheoryDataRow<string, string, bool>(
            r.GetProperty("template").GetString()!, r.GetProperty("chat").GetString()!, r.GetProperty("add_generation_prompt").GetBoolean()));

    [Theory, MemberData(nameof(Renderings))]
    public void Render_MatchesTransformers(string template, string chat, bool addGenerationPrompt)
    {
        var expected = Cases.GetProperty("renderings").EnumerateArray().Single(r => r.GetProperty("template").ValueEquals(template)
            && r.GetProperty("chat").ValueEquals(chat) && r.GetProperty("add_generation_prompt").GetBoolean() == addGenerationPrompt);
        var input = Cases.GetProperty("chats").GetProperty(chat);
        var conversation = new Conversation
        {
            Messages = [.. input.GetProperty("messages").EnumerateArray()],
            Tools = input.TryGetProperty("tools", out var tools) ? tools : null,
        };
        string Render() => ChatTemplate.Parse(Cases.GetProperty("templates").GetProperty(template).GetString()!)
            .Render(conversation, addGenerationPrompt, Variables).Text;

        if (expected.TryGetProperty("error", out var error))
        {
            var message = error.GetString()!;
            Should.Throw<TemplateException>(Render).Message.ShouldBe(message[(message.IndexOf(": ", StringComparison.Ordinal) + 2)..]);
        }
        else
        {
            Render().ShouldBe(expected.GetProperty("text").GetString());
        }
    }
}
