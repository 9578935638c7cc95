using System.Security.Cryptography;
using System.Text.Json;
using PeftServer.Engine.Models;
using PeftServer.Engine.Tokenizers;
using PeftServer.Engine.Tokenizers.ChatTemplates;
using PeftServer.Engine.Weights;

namespace PeftServer.Goldens.Tests;

/// <summary>
/// Real models against transformers: SmolLM2-135M from its GGUF file, all-MiniLM-L6-v2 from its folder. Their weights lie in
/// <c>samples</c> beside the folder of the cases; where they do not, the case fails and says so.
/// </summary>
[Trait("Category", "Long")]
public sealed class RealCases
{
    public static TheoryData<string> SmolLm2 => Of("smollm2");

    public static TheoryData<string> MiniLm => Of("minilm");

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(SmolLm2))]
    public void GgufTensors_OfSmolLm2_AreBitForBitTheReferences(string name)
    {
        using var expected = JsonDocument.Parse(File.ReadAllBytes(GoldenFolder.PathOf("real", name, "tensors.json")));
        using var checkpoint = Checkpoint.Open(Weights(name));

        checkpoint.Names.Order(StringComparer.Ordinal).ShouldBe(expected.RootElement.EnumerateObject().Select(tensor => tensor.Name).Order(StringComparer.Ordinal));
        foreach (var tensor in expected.RootElement.EnumerateObject())
        {
            using var scope = NewDisposeScope();
            var values = checkpoint.Tensor(tensor.Name).to(ScalarType.Float32).contiguous();
            values.shape.ShouldBe(tensor.Value.GetProperty("shape").EnumerateArray().Select(size => size.GetInt64()));
            Convert.ToHexStringLower(SHA256.HashData(values.bytes)).ShouldBe(tensor.Value.GetProperty("sha256").GetString(), tensor.Name);
        }
    }

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(SmolLm2))]
    public void Chats_WithSmolLm2_HaveTransformersLogitsAndAnswers(string name)
    {
        using var file = SafetensorsFile.Open(GoldenFolder.PathOf("real", name, "golden.safetensors"));
        using var cases = JsonDocument.Parse(File.ReadAllBytes(GoldenFolder.PathOf("real", name, "golden.json")));
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var model = (CausalLanguageModel)PretrainedModel.Load(Weights(name), CPU, ScalarType.Float32);
        var encoder = new ChatEncoder(Tokenizer.Load(Weights(name)));
        var prompts = cases.RootElement.GetProperty("prompts");
        for (var i = 0; i < prompts.GetArrayLength(); i++)
        {
            var ids = Ints(file.Tensor($"prompt{i}.ids"));
            var messages = prompts[i].GetProperty("messages").EnumerateArray().Select(message => (message.GetProperty("role").GetString()!, message.GetProperty("content").GetString()!)).ToArray();
            encoder.EncodePrompt(Conversation.Of(messages)).ShouldBe(ids, $"tokens of chat {i}");
            CheckLogits(model, file, i, ids);
            Greedy(model, ids, file.Tensor($"prompt{i}.greedy_ids").size(0)).ShouldBe(Ints(file.Tensor($"prompt{i}.greedy_ids")), $"answer to chat {i}");
        }
    }

    [Theory(SkipTestWithoutData = true)]
    [MemberData(nameof(MiniLm))]
    public void Sentences_WithMiniLm_HaveTheReferencesEmbeddings(string name)
    {
        using var file = SafetensorsFile.Open(GoldenFolder.PathOf("real", name, "golden.safetensors"));
        using var cases = JsonDocument.Parse(File.ReadAllBytes(GoldenFolder.PathOf("real", name, "golden.json")));
        using var scope = NewDisposeScope();
        using var frozen = no_grad();
        using var encoder = SentenceEncoder.Load(Weights(name), CPU, ScalarType.Float32);
        encoder.MaxLength.ShouldBe(cases.RootElement.GetProperty("max_length").GetInt32());
        var tokenizer = Tokenizer.Load(Weights(name));
        var sentences = cases.RootElement.GetProperty("sentences").EnumerateArray().Select(sentence => sentence.GetString()!);
        var rows = sentences.Select(sentence => tokenizer.EncodeWithOffsets(sentence, truncation: new TruncationOptions { MaxLength = encoder.MaxLength!.Value }).Ids.ToArray()).ToList();
        var (ids, mask) = (file.Tensor("input_ids"), file.Tensor("attention_mask"));
        for (var i = 0; i < rows.Count; i++)
        {
            rows[i].ShouldBe(Ints(ids.select(0, i))[..(int)mask.select(0, i).sum().item<long>()], $"tokens of sentence {i}");
        }

        using var batch = ForwardBatch.Packed(rows, [], CPU);
        var embeddings = encoder.Embed(batch);

        Golden.ShouldAgree("embeddings", embeddings, file.Tensor("embeddings"), 1e-5);
        Golden.ShouldAgree("cosine", embeddings.mm(embeddings.t()), file.Tensor("cosine"), 1e-5);
    }

    private static void CheckLogits(CausalLanguageModel model, SafetensorsFile file, int chat, int[] ids)
    {
        using var scope = NewDisposeScope();
        using var batch = ForwardBatch.Packed([ids], [], CPU);
        var hidden = model.Hidden(batch).index_select(0, file.Tensor($"prompt{chat}.positions"));
        var logits = model.Logits(hidden, batch); // [positions, vocabulary]
        Golden.ShouldAgree("top_values", logits.gather(1, file.Tensor($"prompt{chat}.top_ids")), file.Tensor($"prompt{chat}.top_values"), 1e-4);
        Golden.ShouldAgree("logsumexp", logits.logsumexp(1), file.Tensor($"prompt{chat}.logsumexp"), 1e-4);
        if (chat == 0)
        {
            Golden.ShouldAgree("last_logits", logits.select(0, -1), file.Tensor("prompt0.last_logits"), 1e-4);
        }
    }

    private static int[] Greedy(CausalLanguageModel model, int[] prompt, long count)
    {
        using var cache = new KeyValueCache(model.LayerCount);
        var written = new List<int>();
        var next = prompt;
        while (written.Count < count)
        {
            using var scope = NewDisposeScope();
            using var batch = ForwardBatch.Cached([new CachedSequence(next, cache, [])], CPU);
            var hidden = model.Hidden(batch);
            written.Add((int)model.Logits(hidden.narrow(0, hidden.size(0) - 1, 1), batch).argmax().item<long>());
            cache.Advance(next.Length);
            next = [written[^1]];
        }

        return [.. written];
    }

    private static int[] Ints(Tensor ids) => [.. ids.data<long>().Select(id => (int)id)];

    private static string Weights(string name)
    {
        var folder = Path.GetFullPath(Path.Combine(GoldenFolder.Root, "..", "samples", name));
        return Directory.Exists(folder) ? folder : throw new DirectoryNotFoundException($"The weights of {name} are not in {folder}.");
    }

    private static TheoryData<string> Of(string name) => [.. Directory.Exists(GoldenFolder.PathOf("real", name)) ? new[] { name } : []];
}
