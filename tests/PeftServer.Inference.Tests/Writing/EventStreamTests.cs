using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using PeftServer.Inference.Writing;

namespace PeftServer.Inference.Tests.Writing;

public sealed class EventStreamTests
{
    private static CancellationToken Now => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Begin_WhatFailsBeforeTheFirstEvent_IsNoStream() =>
        (await Should.ThrowAsync<InvalidOperationException>(() => EventStream.BeginAsync(EventsAsync(0), Now))).Message.ShouldBe("broken");

    [Fact]
    public async Task Execute_WhatFailsLater_IsAnEventThatClientsLookFor()
    {
        var lines = await SentAsync(EventsAsync(2));

        lines.Length.ShouldBe(4);
        lines[..2].ShouldBe(["""data: {"number":0}""", """data: {"number":1}"""]);
        lines[2].ShouldStartWith("""data: {"error":{"message":"The answer broke off.""");
        lines[3].ShouldBe("data: [DONE]");
    }

    [Fact]
    public async Task Execute_NoEvents_IsDone() => (await SentAsync(AsyncEnumerable.Empty<object>())).ShouldBe(["data: [DONE]"]);

    private static async Task<string[]> SentAsync(IAsyncEnumerable<object> events)
    {
        await using var services = new ServiceCollection().AddLogging().BuildServiceProvider();
        using var body = new MemoryStream();
        var context = new DefaultHttpContext { RequestServices = services, Response = { Body = body } };

        await (await EventStream.BeginAsync(events, Now)).ExecuteAsync(context);

        context.Response.ContentType.ShouldBe("text/event-stream; charset=utf-8");
        return System.Text.Encoding.UTF8.GetString(body.ToArray()).Split("\n\n", StringSplitOptions.RemoveEmptyEntries);
    }

    private static async IAsyncEnumerable<object> EventsAsync(int good)
    {
        for (var i = 0; i < good; i++)
        {
            await Task.Yield();
            yield return new { Number = i };
        }

        throw new InvalidOperationException("broken");
    }
}
